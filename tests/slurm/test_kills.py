"""Random kill -9 on a real Slurm: of ranks, of a job's script, of slurmd, of slurmctld, of a whole node, while the
launcher waits. The end is that of a quiet run, and nobody is needed.

MEGDET_SLURM_KILLED names what is killed (all, parted by semicolons), MEGDET_SLURM_KILLS says how often in all (each
once); the moments come from MEGDET_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from megdet.runs.folder import RunFolder
from tests.faults.runs import is_the_same_as
from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import kill, processes_with, wait_until
from tests.slurm.jobs import field_of
from tests.slurm.sweeps import SMALL, job_of, logs_of, ranks_of, start_launcher, state_of_run, wait_for_steps

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

KILLED = os.environ.get("MEGDET_SLURM_KILLED", "rank;ranks;job script;slurmctld;slurmd;slurmd, given up;node").split(
    ";"
)
KILLS = int(os.environ.get("MEGDET_SLURM_KILLS", str(len(KILLED))))
SEED = int(os.environ.get("MEGDET_SEED", "0"))
RUN = [
    "batch=4", "bn_size=4", "gpus=2", "schedule.epochs=16", "schedule.milestones=[12]", "checkpoint_every_min=1e-9",
]  # fmt: skip
STEPS = 64


def test_random_kills_under_slurm_cost_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    quiet, launcher = submit(slurm, new(tmp_path / "quiet"))
    assert launcher.wait(timeout=240) == 0, logs_of(quiet)
    generator, ends = random.Random(SEED), []
    for number in range(KILLS):
        what = KILLED[number % len(KILLED)]
        run, launcher = submit(slurm, new(tmp_path / f"{number}-{what}"))
        job = job_of(run)
        wait_for_steps(run, generator.randint(1, STEPS // 2))
        time.sleep(generator.uniform(0, 0.3))
        kill_one(what, slurm, run, generator)
        assert launcher.wait(timeout=300) == 0, f"{what}, seed {SEED}\n{logs_of(run)}"
        assert is_the_same_as(RunFolder(run), RunFolder(quiet)), f"{what}, seed {SEED}\n{logs_of(run)}"
        assert wait_until(lambda run=run: not ranks_of(run), timeout_s=150), f"orphans after {what}"  # type: ignore[misc]
        again = "" if job_of(run) == job else ", in a job of its own"
        ends.append(f"{what}: {state_of_run(run)['attempts']} starts{again}")
    print(f"\n{KILLS} kills under Slurm: {ends}")


def submit(cluster: SlurmCluster, folder: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """A launcher that submits the run and waits for its end; the run's folder, which has its job."""
    launcher = start_launcher(cluster, folder, "-m", *SMALL, *RUN)

    def submitted() -> list[Path]:
        return [path.parent for path in (folder / "runs").glob("*/submission.json")]

    assert wait_until(lambda: bool(submitted()) or launcher.poll() is not None, timeout_s=120)
    (run,) = submitted()
    return run, launcher


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def kill_one(what: str, cluster: SlurmCluster, run: Path, generator: random.Random) -> None:
    """Kill a part of what a run under way needs, and bring back what an administrator would."""
    job, node = job_of(run), field_of(cluster, job_of(run), "NodeList")
    if what == "rank":
        kill([generator.choice(list(ranks_of(run).values()))])
    elif what == "ranks":
        kill(list(ranks_of(run).values()))
    elif what == "job script":
        here = set(processes_with(SLURM_JOB_ID=job)) - set(ranks_of(run).values())
        kill([pid for pid in here if b"/slurm_script" in Path(f"/proc/{pid}/cmdline").read_bytes()])
    elif what == "slurmctld":
        # It writes down every few seconds which jobs there are; one that it took since then it forgets.
        saved, began = cluster.folder / "state/job_state", time.time()
        assert wait_until(lambda: saved.exists() and saved.stat().st_mtime > began, timeout_s=150)
        cluster.daemons.stop("slurmctld", number=signal.SIGKILL)
        time.sleep(generator.uniform(0, 12))
        cluster.start_controller()
    elif what == "slurmd":  # its steps and ranks live on, and nobody counts them
        cluster.daemons.stop(f"slurmd-{node}", number=signal.SIGKILL)
        time.sleep(generator.uniform(0, 20))
        cluster.start_node(node, clean=False)
    elif what == "slurmd, given up":  # it comes back in the second in which Slurm gives its node up
        cluster.daemons.stop(f"slurmd-{node}", number=signal.SIGKILL)
        assert wait_until(lambda: cluster.states_of_nodes()[node].startswith("down"), timeout_s=120)
        time.sleep(generator.uniform(0, 1))
        cluster.start_node(node, clean=False)
    else:
        cluster.kill_node(node)
        time.sleep(generator.uniform(0, 20))
        cluster.start_node(node)
