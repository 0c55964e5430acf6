"""Random kill -9: of a rank, of all of them, of the launcher; at any moment, and in the middle of a checkpoint, of a
journal line, of an evaluation, of a push to MLflow. The end is that of a quiet run.

MEGDET_KILLS says how often (12 from outside, and a quarter of that in each of the four middles); the moments come from
MEGDET_SEED.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import read_journal
from megdet.runs.status import Status
from megdet.tracking.client import prepare
from megdet.tracking.mirror import mirror
from tests.faults.deadly import WINDOWS
from tests.faults.runs import NUMBERS, a_plan, is_the_same_as
from tests.runs.folders import stand_of
from tests.tracking.databases import new_database

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow's own, when it loads

KILLS = int(os.environ.get("MEGDET_KILLS", "12"))
SEED = int(os.environ.get("MEGDET_SEED", "0"))


@dataclass(frozen=True)
class Quiet:
    """The run that nothing has disturbed."""

    folder: RunFolder
    takes_s: float


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Quiet:
    place = tmp_path_factory.mktemp("quiet")
    plan, began = a_plan(place, shapes_root, gpus=2), time.monotonic()
    assert launch(plan, place / "log.txt").wait(timeout=120) == 0
    return Quiet(folder_of(plan), time.monotonic() - began)


def launch(plan: Plan, log: Path, *program: str, **environment: str) -> subprocess.Popen[str]:
    with log.open("a") as file:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "megdet.launchers.local.one_run", *program],
            stdin=subprocess.PIPE, stdout=file, stderr=file, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
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


def test_random_kills_cost_nothing(quiet: Quiet, tmp_path: Path, shapes_root: Path) -> None:
    generator, kills, runs = random.Random(SEED), dict.fromkeys(("rank", "ranks", "launcher"), 0), 0
    while sum(kills.values()) < KILLS:
        plan = a_plan(tmp_path / f"run{runs}", shapes_root, gpus=2)
        plan.config.cluster.max_retries = 100
        folder, log, runs = folder_of(plan), tmp_path / f"log{runs}.txt", runs + 1
        launcher = launch(plan, log)
        for _ in range(3):
            time.sleep(generator.uniform(0.05, 0.9) * quiet.takes_s)
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
        ends_well(launcher, folder, log, quiet)
    print(f"\n{sum(kills.values())} kills in {runs} runs ({kills}): every end bit for bit the same, every metric once")


def wait_until_gone(folder: RunFolder) -> None:
    """A launcher that is killed leaves no rank behind, and nobody who holds the folder's lock."""
    until = time.monotonic() + 60
    while ranks_of(folder) or stand_of(folder).status == Status.RUNNING:
        assert time.monotonic() < until, f"orphans: {ranks_of(folder)}"
        time.sleep(0.05)


@pytest.mark.parametrize("window", WINDOWS)
def test_kills_in_the_middle_cost_nothing(window: str, quiet: Quiet, tmp_path: Path, shapes_root: Path) -> None:
    record, runs = tmp_path / "kills.txt", 0
    record.touch()
    while (kills := record.read_text().count("\n")) < KILLS / len(WINDOWS):
        place, runs = tmp_path / f"run{runs}", runs + 1
        plan = a_plan(place, shapes_root, gpus=2)
        plan.config.cluster.max_retries = 100
        tracking = plan.config.tracking
        tracking.enabled, tracking.uri = window == "sync", new_database(place / "store")
        assert prepare(tracking.uri, tracking.experiment)
        deadly = json.dumps({"window": window, "seed": f"{SEED} {runs}", "record": str(record)})
        launcher = launch(plan, place / "log.txt", "-m", "tests.faults.deadly", MEGDET_DEADLY=deadly)
        ends_well(launcher, folder_of(plan), place / "log.txt", quiet)
        if tracking.enabled:
            assert mirror(folder_of(plan), tracking.uri, tracking.experiment)
            assert_mlflow_has(folder_of(plan), tracking.uri, tracking.experiment)
    print(f"\n{kills} kills in the middle of: {window} in {runs} runs: every end bit for bit the same")


def ends_well(launcher: subprocess.Popen[str], folder: RunFolder, log: Path, quiet: Quiet) -> None:
    assert launcher.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert stand_of(folder).status == Status.FINISHED
    assert is_the_same_as(folder, quiet.folder), log
    assert pictures_of(folder) == pictures_of(quiet.folder), log
    assert not ranks_of(folder)


def pictures_of(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.pictures.iterdir()}


def assert_mlflow_has(folder: RunFolder, uri: str, experiment: str) -> None:
    """One run, with each number of the journal once."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    lines = read_journal(folder)
    for kind, curve, over in (("step", "step/", "step"), ("epoch", "", "epoch")):
        for name in NUMBERS:
            points = client.get_metric_history(run.info.run_id, curve + name)
            values = [(line[over], line[name]) for line in lines if line["kind"] == kind and line.get(name) is not None]
            assert sorted((point.step, point.value) for point in points) == values, (kind, name)
