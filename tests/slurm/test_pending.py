"""Jobs that wait on a real Slurm, for reasons that Slurm itself gives: what can never start, or needs somebody, is
reported within a minute."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from megdet.launchers.slurm.pending import Wait
from tests.slurm.cluster import SlurmCluster
from tests.slurm.configuration import PREEMPTIBLE
from tests.slurm.daemons import wait_until
from tests.slurm.jobs import submit, wait_for
from tests.slurm.sweeps import job_of, run_program, submit_runs

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

REPORTED_S = 60.0
HELD = "+cluster.sbatch_options.hold=true"
"""So that something can be changed after Slurm has taken the job, and before it looks at it."""


@dataclass(frozen=True)
class Reason:
    """A reason to wait, and how it comes about."""

    word: str
    """Slurm's."""
    wait: Wait
    asked: Sequence[str] = ()
    """Of the run."""
    change: Sequence[Sequence[str]] = ()
    """Commands, once the job is there; then it is released."""
    undo: Sequence[Sequence[str]] = field(default=())


def update(*words: str) -> tuple[str, ...]:
    return ("scontrol", "update", *words)


def set_qos(*words: str) -> tuple[str, ...]:
    return ("sacctmgr", "--immediate", "modify", "qos", "normal", "set", *words)


REASONS = {
    "held": Reason("JobHeldUser", Wait.HELD, [HELD], [("scontrol", "uhold", "JOB")]),
    "held by the administrator": Reason("JobHeldAdmin", Wait.HELD, [HELD], [("scontrol", "hold", "JOB")]),
    "partition down": Reason(
        "PartitionDown", Wait.HELD, [HELD, f"cluster.partition={PREEMPTIBLE}"],
        [update(f"PartitionName={PREEMPTIBLE}", "State=DOWN"), ("scontrol", "release", "JOB")],
        [update(f"PartitionName={PREEMPTIBLE}", "State=UP")],
    ),
    "node drained": Reason(
        "ReqNodeNotAvail, UnavailableNodes:node3", Wait.HELD, [HELD, '+cluster.sbatch_options.nodelist="node3"'],
        [update("NodeName=node3", "State=DRAIN", "Reason=repair"), ("scontrol", "release", "JOB")],
        [update("NodeName=node3", "State=RESUME")],
    ),
    "time limit of the partition": Reason(
        "PartitionTimeLimit", Wait.NEVER, [HELD, f"cluster.partition={PREEMPTIBLE}"],
        [update(f"PartitionName={PREEMPTIBLE}", "MaxTime=1"), ("scontrol", "release", "JOB")],
        [update(f"PartitionName={PREEMPTIBLE}", "MaxTime=INFINITE")],
    ),
    "dependency that has failed": Reason(
        "DependencyNeverSatisfied", Wait.NEVER, ["+cluster.sbatch_options.dependency=afterok:FAILED"]
    ),
    "time limit of the QOS": Reason(
        "QOSMaxWallDurationPerJobLimit", Wait.NEVER, [HELD],
        [set_qos("MaxWall=1"), ("scontrol", "release", "JOB")], [set_qos("MaxWall=-1")],
    ),
    "more than the QOS gives a job": Reason(
        "QOSMaxMemoryPerJob", Wait.NEVER, [HELD],
        [set_qos("MaxTRESPerJob=mem=1"), ("scontrol", "release", "JOB")], [set_qos("MaxTRESPerJob=mem=-1")],
    ),
    "no hours left": Reason(
        "QOSGrpCPUMinutesLimit", Wait.HELD, [HELD],
        [set_qos("GrpTRESMins=cpu=0"), ("scontrol", "release", "JOB")], [set_qos("GrpTRESMins=cpu=-1")],
    ),
}  # fmt: skip


@contextmanager
def waiting(cluster: SlurmCluster, folder: Path, reason: Reason, *, failed: str) -> Iterator[Path]:
    """A run whose job waits for that reason."""
    (run,) = submit_runs(
        cluster, folder, "batch=2", "bn_size=0", "gpus=1", *(word.replace("FAILED", failed) for word in reason.asked)
    )
    job = job_of(run)
    try:
        for words in reason.change:
            cluster.call(*(word.replace("JOB", job) for word in words))
        yield run
    finally:
        cluster.call("scancel", job)
        for words in reason.undo:
            cluster.call(*words)


@contextmanager
def watched(cluster: SlurmCluster, folder: Path, run: Path) -> Iterator[Callable[[], str]]:
    """What `megdet wait` has said so far."""
    said = folder / "said"
    with said.open("w") as file:
        waits = subprocess.Popen(
            [sys.executable, "-m", "megdet.cli", "wait", str(run)],
            cwd=folder, env={**os.environ, **cluster.environment}, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        yield said.read_text
    finally:
        waits.kill()
        waits.wait()


@pytest.fixture(scope="module")
def failed(slurm_accounting: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that has failed."""
    job = submit(slurm_accounting, tmp_path_factory.mktemp("failed"), "exit 1", "--output=/dev/null")
    assert wait_for(slurm_accounting, job) == "FAILED"
    return job


@pytest.mark.parametrize("name", REASONS)
def test_why_a_job_waits_is_reported_within_a_minute(
    name: str, slurm_accounting: SlurmCluster, failed: str, tmp_path: Path
) -> None:
    cluster, reason = slurm_accounting, REASONS[name]
    with waiting(cluster, tmp_path, reason, failed=failed) as run:
        look = ("squeue", "--noheader", f"--jobs={job_of(run)}", "--format=%r")
        with watched(cluster, tmp_path, run) as said:
            assert wait_until(lambda: reason.word in cluster.call(*look), timeout_s=90), cluster.call(*look)
            began = time.monotonic()
            line = f"job {job_of(run)} {reason.wait.value}: {reason.word}"
            assert wait_until(lambda: line in said(), timeout_s=REPORTED_S), said()
            print(f"\n{name}: {time.monotonic() - began:.1f} s", end="")
        shown = run_program(cluster, tmp_path, "-m", "megdet.cli", "status").stdout
        assert re.search(rf"{re.escape(line)} \(.{{10,}}\)", shown), shown
