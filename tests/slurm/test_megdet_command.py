"""The command `megdet` over runs of a real cluster: seen, followed, cancelled, waited for, explained."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.jobs import wait_for
from tests.slurm.sweeps import job_of, ranks_of, run_program, status_of, submit_runs, wait_for_steps

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

PLACE = ["batch=2", "bn_size=2", "images_per_gpu=2", "gpus=1", "+cluster.sbatch_options.nodelist=node1"]
WHOLE_NODE = "cluster.mem_gb_per_gpu=450"
"""One run at a time: the others wait."""
LONG = ["schedule.epochs=40", "schedule.milestones=[30]"]


@pytest.fixture(autouse=True)
def _nothing_left_behind(slurm: SlurmCluster) -> Iterator[None]:
    yield
    slurm.call("scancel", "--user=root")


def test_runs_of_a_cluster_are_cancelled_while_they_run_and_while_they_wait(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    runs = submit_runs(slurm, tmp_path, *PLACE, WHOLE_NODE, *LONG, "seed=0,1")
    running, queued = runs
    wait_for_steps(running)
    assert (status_of(slurm, running), status_of(slurm, queued)) == ("running", "queued")
    megdet = ("-m", "megdet.cli")
    refused = run_program(slurm, tmp_path, *megdet, "cancel")
    assert refused.returncode == 2 and running.name in refused.stderr and queued.name in refused.stderr
    done = run_program(slurm, tmp_path, *megdet, "cancel", "b2-*")
    assert done.returncode == 0 and done.stdout.count("cancelled") == 2, done.stdout + done.stderr
    waited = run_program(slurm, tmp_path, *megdet, "wait")
    assert waited.returncode == 1, waited.stdout + waited.stderr
    for run in runs:
        assert wait_until(lambda run=run: status_of(slurm, run) == "cancelled", timeout_s=150, every_s=1)
    assert (running / "checkpoint.pt").exists(), "it could write one before it ended"
    why = run_program(slurm, tmp_path, *megdet, "why")
    assert why.returncode == 0 and "nothing went wrong" in why.stdout, why.stdout


def test_a_run_is_followed_to_its_end_and_a_killed_one_is_explained(slurm: SlurmCluster, tmp_path: Path) -> None:
    megdet = ("-m", "megdet.cli")
    (run,) = submit_runs(slurm, tmp_path, *PLACE)
    followed = run_program(slurm, tmp_path, *megdet, "logs", run.name, "-f")
    assert followed.returncode == 0 and "finished" in followed.stdout, followed.stdout + followed.stderr
    assert run_program(slurm, tmp_path, *megdet, "wait").returncode == 0
    killed = next(r for r in submit_runs(slurm, tmp_path, *PLACE, *LONG, "cluster.max_retries=0") if r != run)
    wait_for_steps(killed)
    os.kill(ranks_of(killed)[0], signal.SIGKILL)
    assert wait_for(slurm, job_of(killed)) == "FAILED"
    assert wait_until(lambda: status_of(slurm, killed) == "failed", timeout_s=150, every_s=1)
    assert run_program(slurm, tmp_path, *megdet, "wait").returncode == 1
    why = run_program(slurm, tmp_path, *megdet, "why").stdout
    assert "killed from outside: 1 run\n" in why and killed.name in why and "cluster.mem_gb_per_gpu" in why
    assert run.name not in why
    job_log = run_program(slurm, tmp_path, *megdet, "logs", killed.name, "--job")
    assert job_log.returncode == 0 and "srun" in job_log.stdout, job_log.stdout
