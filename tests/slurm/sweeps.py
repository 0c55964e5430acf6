"""`launch.py` against a test cluster, with an experiment so small that two cores can play several nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import processes_with, wait_until

ROOT = Path(__file__).parents[2]

SMALL = [
    "experiment=tiny", "hydra/launcher=submitit_slurm", "cluster=paper", "cluster.gpus_per_node=2", "gpus=auto",
    "cluster.cpus_per_gpu=1", "cluster.signal_delay_s=10", "cluster.time_min=10", "tracking.enabled=false",
    "data.train_images=16", "data.val_images=4", "data.min_size=64", "data.max_size=107", "log_every=1",
    "schedule.epochs=2", "schedule.milestones=[1]", "schedule.factors=[0.1]",
]  # fmt: skip
"""A tiny detector on nodes of two GPUs each: 16 training images, two epochs."""

ONE_JOB_A_NODE = "cluster.mem_gb_per_gpu=200"
"""A node has 500 GB: two ranks fill it, so a sweep has no more ranks at once than the cluster has places."""


def launch(
    cluster: SlurmCluster, folder: Path, *arguments: str, timeout_s: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """`python launch.py ARGUMENTS` in `folder`, on the login node of a cluster."""
    return run_program(cluster, folder, str(ROOT / "launch.py"), *arguments, timeout_s=timeout_s)


def run_program(
    cluster: SlurmCluster, folder: Path, *words: str, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """`python WORDS` in `folder`, as a user of a cluster would."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=_environment(cluster), capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip


def start_launcher(cluster: SlurmCluster, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`python launch.py ARGUMENTS` in `folder`, in the background; what it says goes to `launcher.log` there."""
    with (folder / "launcher.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *arguments],
            cwd=folder, env=_environment(cluster), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def _environment(cluster: SlurmCluster) -> dict[str, str]:
    settings: Mapping[str, str] = {
        **cluster.environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "",
    }  # fmt: skip
    return {**os.environ, **settings}


def submit_runs(cluster: SlurmCluster, folder: Path, *arguments: str) -> list[Path]:
    """Submit by `launch.py`, wait for nothing; the folders of the runs, ordered by job."""
    done = launch(cluster, folder, "-m", *SMALL, "sweep.wait=false", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [path.parent for path in (folder / "runs").glob("*/submission.json")]
    assert runs, done.stdout + done.stderr
    return sorted(runs, key=job_of)


def job_of(run: Path) -> str:
    """The job that a run was handed over to: `123`, or `123_4` of an array."""
    return str(_json(run / "submission.json")["job"])


def state_of_run(run: Path) -> dict[str, Any]:
    """A run's own word; empty before its first attempt."""
    return _json(run / "state.json")


def status_of(cluster: SlurmCluster, run: Path) -> str:
    """The state that `megdet status` shows for a run."""
    shown = run_program(cluster, run.parents[1], "-m", "megdet.cli", "status")
    assert shown.returncode == 0, shown.stderr
    # A row is bordered or not, and begins with the run's name.
    words = [line.replace("│", " ").split() for line in shown.stdout.splitlines() if run.name in line]
    assert words, shown.stdout
    return words[0][1]


def wait_for_run(run: Path, state: str, *, attempts: int = 1, timeout_s: float = 120.0) -> dict[str, Any]:
    """Wait until a run says that it is in a state, in this attempt or a later one."""

    def reached() -> bool:
        said = state_of_run(run)
        return said.get("status") == state and said["attempts"] >= attempts

    if not wait_until(reached, timeout_s=timeout_s, every_s=0.2):
        raise AssertionError(f"not {state} (attempt {attempts}) in {timeout_s} s: {state_of_run(run)}\n{logs_of(run)}")
    return state_of_run(run)


def wait_for_steps(run: Path, steps: int = 2, *, timeout_s: float = 90.0) -> None:
    """Wait until a run has recorded so many steps: its ranks are in the middle of training."""

    def recorded() -> bool:
        journal = run / "metrics.jsonl"
        return journal.exists() and journal.read_text().count('"step"') >= steps

    if not wait_until(recorded, timeout_s=timeout_s):
        raise AssertionError(f"no {steps} steps in {timeout_s} s: {state_of_run(run)}\n{logs_of(run)}")


def ranks_of(run: Path) -> dict[int, int]:
    """The process ids of the ranks of a run that is under way, by rank."""
    job = job_of(run).partition("_")
    wanted = {"SLURM_ARRAY_JOB_ID": job[0], "SLURM_ARRAY_TASK_ID": job[2]} if job[2] else {"SLURM_JOB_ID": job[0]}
    return {rank: pid for rank in range(16) for pid in processes_with(**wanted, RANK=str(rank))}


def logs_of(run: Path) -> str:
    """The ends of all that a run and its job have said."""
    logs = [*sorted(run.glob("log-rank*.txt")), *sorted(run.parent.glob(".submissions/*/*_log.out"))]
    return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:]) for log in logs)


def _json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return values
