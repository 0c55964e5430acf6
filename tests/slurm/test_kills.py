"""Random kill -9 on a real Slurm: of ranks, of a job's script, of slurmd, of slurmctld, of a whole node. The end is
that of a quiet run; nobody is needed, but for a job whose script is gone: Slurm ends it, and the same command goes on.

MEGDET_SLURM_KILLS says how often (6: each once); the moments come from MEGDET_SEED.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from megdet.runs.folder import RunFolder
from tests.faults.runs import is_the_same_as
from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import kill, processes_with, wait_until
from tests.slurm.jobs import field_of, wait_for
from tests.slurm.sweeps import job_of, logs_of, ranks_of, submit_runs, wait_for_run, wait_for_steps

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

KILLED = ("rank", "ranks", "job script", "slurmctld", "slurmd", "node")
KILLS = int(os.environ.get("MEGDET_SLURM_KILLS", str(len(KILLED))))
SEED = int(os.environ.get("MEGDET_SEED", "0"))
RUN = [
    "batch=4", "bn_size=4", "gpus=2", "schedule.epochs=16", "schedule.milestones=[12]", "checkpoint_every_min=1e-9",
]  # fmt: skip
STEPS = 64


def test_random_kills_under_slurm_cost_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    (quiet,) = submit_runs(slurm, new(tmp_path / "quiet"), *RUN)
    wait_for_run(quiet, "finished")
    generator, starts = random.Random(SEED), []
    for number in range(KILLS):
        what = KILLED[number % len(KILLED)]
        (run,) = submit_runs(slurm, new(tmp_path / f"{number}-{what}"), *RUN)
        wait_for_steps(run, generator.randint(1, STEPS // 2))
        time.sleep(generator.uniform(0, 0.3))
        kill_one(what, slurm, run, generator)
        if what == "job script":
            assert wait_for(slurm, job_of(run)) == "FAILED"
            assert submit_runs(slurm, run.parents[1], *RUN) == [run]
        state = wait_for_run(run, "finished", timeout_s=180)
        assert wait_for(slurm, job_of(run)) == "COMPLETED", logs_of(run)
        assert is_the_same_as(RunFolder(run), RunFolder(quiet)), f"{what}, seed {SEED}\n{logs_of(run)}"
        assert wait_until(lambda run=run: not ranks_of(run), timeout_s=150), f"orphans after {what}"  # type: ignore[misc]
        starts.append((what, state["attempts"]))
    print(f"\n{KILLS} kills under Slurm, and the starts that it took: {starts}")


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
    else:
        cluster.kill_node(node)
        time.sleep(generator.uniform(0, 20))
        cluster.start_node(node)
