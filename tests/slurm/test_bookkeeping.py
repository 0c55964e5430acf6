"""What is known about jobs when a launcher dies, or Slurm does not answer, on a real cluster."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.jobs import submit, wait_for
from tests.slurm.sweeps import SMALL, job_of, launch, run_program, status_of, submit_runs, wait_for_run

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

RUN = ["batch=2", "bn_size=0", "sweep.wait=false"]
ONE_RUN = [*RUN, "+cluster.sbatch_options.begin=now+1hour"]
"""A job that stays in the queue."""


def die_after_sbatch(slurm: SlurmCluster, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Slurm has the jobs; the launcher is killed before it hears of them."""
    sbatch = folder / "bin/sbatch"
    sbatch.parent.mkdir()
    real = shutil.which("sbatch")
    rehearsed = f'case " $* " in *" --test-only "*) exec {real} "$@";; esac'  # a question before the submission
    sbatch.write_text(f'#!/bin/bash\n{rehearsed}\n{real} "$@" > /dev/null\nkill -9 $PPID\n')
    sbatch.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{sbatch.parent}:/usr/bin:/bin:/usr/sbin")
        died = launch(slurm, folder, "-m", *SMALL, *arguments)
    assert died.returncode == -9, died.stdout + died.stderr


def test_the_jobs_of_a_launcher_that_died_right_after_sbatch_run_all_the_same(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though submitit could not name what they are to call after them, and nobody launches again."""
    die_after_sbatch(slurm, tmp_path, monkeypatch, *RUN, "seed=0,1")
    runs = [path.parent for path in (tmp_path / "runs").glob("*/plan.json")]
    assert len(runs) == 2
    for run in runs:
        assert wait_for_run(run, "finished")["attempts"] == 1
        assert status_of(slurm, run) == "finished"
    assert len({job_of(run) for run in runs}) == 2


def test_the_jobs_of_a_launcher_that_died_right_after_sbatch_are_found_again(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after_sbatch(slurm, tmp_path, monkeypatch, *ONE_RUN)
    in_queue = slurm.call("squeue", "--noheader", "--states=pending", "--format=%i %j")
    job, name = in_queue.splitlines()[-1].split()
    try:
        again = launch(slurm, tmp_path, "-m", *SMALL, *ONE_RUN)
        assert again.returncode == 0, again.stdout + again.stderr
        (run,) = [path.parent for path in (tmp_path / "runs").glob("*/submission.json")]
        assert job_of(run) == job and name.startswith("megdet")
        assert slurm.call("squeue", "--noheader", "--states=pending", "--format=%i %j") == in_queue
        assert status_of(slurm, run) == "queued"
    finally:
        slurm.call("scancel", job)


def test_a_controller_that_does_not_answer_hangs_nothing_and_loses_no_run(slurm: SlurmCluster, tmp_path: Path) -> None:
    (run,) = submit_runs(slurm, tmp_path, *ONE_RUN)
    slurm.stop_controller()
    try:
        began = time.monotonic()
        shown = run_program(slurm, tmp_path, "-m", "megdet.cli", "status", timeout_s=90)
        assert shown.returncode == 0 and time.monotonic() - began < 60
        assert "lost" not in shown.stdout, shown.stdout
        refused = launch(slurm, tmp_path, "-m", *SMALL, *ONE_RUN, "seed=7", timeout_s=120)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr, refused.stdout + refused.stderr
    finally:
        slurm.start_controller()
    try:
        assert wait_until(lambda: status_of(slurm, run) == "queued", timeout_s=150, every_s=1)
    finally:
        slurm.call("scancel", job_of(run))


@pytest.mark.parametrize("accounting", [True, False], ids=["accounting", "no accounting"])
def test_jobs_that_the_controller_has_forgotten_are_looked_up_in_the_accounts(
    accounting: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    cluster: SlurmCluster = request.getfixturevalue("slurm_accounting" if accounting else "slurm")
    array = submit(cluster, tmp_path, "exit $((5 * SLURM_ARRAY_TASK_ID))", "--array=0-1")
    elements = [f"{array}_0", f"{array}_1"]
    assert [wait_for(cluster, element) for element in elements] == ["COMPLETED", "FAILED"]
    accounts = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={array}", "--format=State")
    if accounting:
        assert wait_until(lambda: cluster.call(*accounts).split() == ["COMPLETED", "FAILED"], timeout_s=150)
    cluster.forget_jobs()
    program = (
        "import sys; from megdet.launchers.slurm.job_states import SlurmQueue\n"
        "states = SlurmQueue().states(sys.argv[1:])\n"
        "print(*((states[job].state, states[job].exit_code) for job in sys.argv[1:]))"
    )
    asked = run_program(cluster, tmp_path, "-c", program, *elements)
    expected = "('completed', 0) ('failed', 5)" if accounting else "('gone', None) ('gone', None)"
    assert asked.stdout.strip() == expected, asked.stdout + asked.stderr


def test_a_job_that_got_the_number_of_a_runs_job_is_not_taken_for_it(slurm: SlurmCluster, tmp_path: Path) -> None:
    (run,) = submit_runs(slurm, tmp_path, *ONE_RUN)
    # As after a cluster was set up anew: it counts from the same number again.
    slurm.forget_jobs(first_job_id=int(job_of(run)))
    stranger = submit(slurm, tmp_path, "true", "--begin=now+1hour")
    try:
        assert stranger == job_of(run)
        assert status_of(slurm, run) in ("cancelled", "lost")
    finally:
        slurm.call("scancel", stranger)
