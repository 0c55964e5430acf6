"""A real Slurm that enforces limits: what a QOS never gives is refused, or planned around, before there is a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.sweeps import SMALL, launch

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

TAKEN_FROM_SLURM = ("cluster=", "cluster.gpus_per_node", "cluster.time_min")
WORDS = [word for word in SMALL if not word.startswith(TAKEN_FROM_SLURM)]
"""Slurm says what there is."""


@pytest.fixture(scope="module")
def limited(slurm_accounting: SlurmCluster) -> SlurmCluster:
    """QOS `lax` lets what is too long wait for ever, which is Slurm's default; `strict` refuses what is too large."""
    lax = ("lax", "set", "MaxWall=30", "MaxTRESPerJob=node=1")
    strict = ("strict", "set", "MaxTRESPerJob=cpu=1", "Flags=DenyOnLimit")
    for words in (lax, strict):
        slurm_accounting.call("sacctmgr", "--immediate", "add", "qos", *words)
    slurm_accounting.call("sacctmgr", "--immediate", "modify", "user", "root", "set", "qos=normal,lax,strict")
    # The controller hears of it a moment later.
    assert wait_until(lambda: answer(slurm_accounting, "--qos=lax") == 0, timeout_s=150)
    return slurm_accounting


def answer(cluster: SlurmCluster, *options: str) -> int:
    return cluster.try_call("sbatch", "--test-only", *options, "--wrap=true").returncode


def test_slurm_itself_would_let_a_job_beyond_a_qos_wait_for_ever(limited: SlurmCluster, tmp_path: Path) -> None:
    """Why its answer to --test-only is not enough."""
    assert answer(limited, "--qos=lax", "--time=60") == 0
    submit = ("sbatch", "--parsable", "--qos=lax", "--time=60", "--output=/dev/null", "--wrap=true")
    job = limited.call(*submit)
    look = ("squeue", "--noheader", f"--jobs={job}", "--format=%r")
    try:
        assert wait_until(lambda: limited.call(*look) == "QOSMaxWallDurationPerJobLimit", timeout_s=150)
    finally:
        limited.call("scancel", job)


def test_a_sweep_is_planned_within_its_qos(limited: SlurmCluster, tmp_path: Path) -> None:
    begin = "+cluster.sbatch_options.begin=now+1hour"
    words = ["batch=32", "bn_size=2", "cluster.qos=lax", "data.train_images=32", begin]
    done = launch(limited, tmp_path, "-m", *WORDS, *words, "sweep.wait=false")
    try:
        # Without a QOS it would have 16 GPUs on 2 nodes.
        assert done.returncode == 0 and "on 1 node x 8 GPUs, 30 min" in done.stdout, done.stdout + done.stderr
    finally:
        limited.call("scancel", "--user=root")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster.qos=lax", "cluster.time_min=60"], "60 min for a job is more than gpu ever gives (30 min, QOS lax)"),
        (["cluster.qos=lax", "cluster.nodes=2", "gpus=16"], "2 nodes x 8 GPUs are more than any job ever gets"),
        (["cluster.qos=strict"], "(sbatch --test-only): QOSMaxCpuPerJobLimit"),
        (["cluster.qos=nope"], "Invalid qos specification"),
        (["cluster.account=nope"], "Invalid account or account/partition combination"),
        (["cluster.mem_gb_per_gpu=900"], "Requested node configuration is not available"),
        (["+cluster.sbatch_options.reservation=nope"], "Requested reservation is invalid"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_slurm_never_gives_or_takes_is_refused_before_there_is_a_run(
    words: list[str], said: str, limited: SlurmCluster, tmp_path: Path
) -> None:
    done = launch(limited, tmp_path, "-m", *WORDS, "batch=16", "bn_size=2", "seed=0,1", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.count(said) == 1, done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()
    assert limited.call("squeue", "--noheader") == ""
