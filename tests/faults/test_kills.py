"""Random kill -9: of a rank, of all of them, of the launcher; at random moments. The end is that of a quiet run.

MEGDET_KILLS says how often (12); the moments come from MEGDET_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megdet.launchers.jobs import stand_of
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.status import Status
from tests.faults.runs import a_plan, is_the_same_as

KILLS = int(os.environ.get("MEGDET_KILLS", "12"))
SEED = int(os.environ.get("MEGDET_SEED", "0"))
ONE_RUN = "import sys; from megdet.launchers.local.one_run import main; sys.exit(main())"


def launch(plan: Plan, log: Path) -> subprocess.Popen[str]:
    with log.open("a") as file:
        launcher = subprocess.Popen(
            [sys.executable, "-c", ONE_RUN], stdin=subprocess.PIPE, stdout=file, stderr=file, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    assert launcher.stdin is not None
    with launcher.stdin:
        launcher.stdin.write(plan.to_json())
    return launcher


def ranks_of(folder: RunFolder) -> list[int]:
    """The processes of a run's ranks, wherever they are."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder.plan).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def kill(pids: list[int]) -> int:
    killed = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        except ProcessLookupError:
            continue
    return killed


@pytest.mark.slow
def test_random_kills_cost_nothing(tmp_path: Path, shapes_root: Path) -> None:
    quiet = a_plan(tmp_path / "quiet", shapes_root, gpus=2)
    began = time.monotonic()
    assert launch(quiet, tmp_path / "quiet.txt").wait(timeout=120) == 0
    takes_s = time.monotonic() - began
    generator, kills, runs = random.Random(SEED), dict.fromkeys(("rank", "ranks", "launcher"), 0), 0
    while sum(kills.values()) < KILLS:
        plan = a_plan(tmp_path / f"run{runs}", shapes_root, gpus=2)
        plan.config.cluster.max_retries = 100
        folder, log, runs = folder_of(plan), tmp_path / f"log{runs}.txt", runs + 1
        launcher = launch(plan, log)
        for _ in range(3):
            time.sleep(generator.uniform(0.05, 0.9) * takes_s)
            what = generator.choice(tuple(kills))
            ranks = ranks_of(folder)
            if launcher.poll() is not None:
                break
            if what == "launcher":
                kills[what] += kill([launcher.pid])
                launcher.wait()
                wait_until_gone(folder)
                launcher = launch(plan, log)
            elif ranks:
                kills[what] += kill([generator.choice(ranks)] if what == "rank" else ranks) > 0
        assert launcher.wait(timeout=300) == 0, log.read_text()[-3000:]
        assert stand_of(folder).status == Status.FINISHED
        assert is_the_same_as(folder, folder_of(quiet)), f"run {runs}, seed {SEED}"
        assert not ranks_of(folder)
    print(f"\n{sum(kills.values())} kills in {runs} runs ({kills}): every end bit for bit the same, every metric once")


def wait_until_gone(folder: RunFolder) -> None:
    """A launcher that is killed leaves no rank behind, and nobody who holds the folder's lock."""
    until = time.monotonic() + 10
    while ranks_of(folder) or stand_of(folder).status == Status.RUNNING:
        assert time.monotonic() < until, f"orphans: {ranks_of(folder)}"
        time.sleep(0.05)
