"""What is known of jobs, with and without accounting, and when Slurm does not answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from megdet.launchers.slurm.client import SlurmClient
from megdet.launchers.slurm.job_states import SlurmQueue
from tests.launchers.conftest import Command

SQUEUE = """cat <<END
123_0|RUNNING|0|sweep-1|None|
123_1|PENDING|0|sweep-1|JobArrayTaskLimit|
124|FAILED|256|sweep-2|NonZeroExitCode|
125|CANCELLED|15|sweep-3|None|
126|COMPLETING|0|sweep-4|None|
END"""
SACCT = """cat <<END
122_0|COMPLETED|0:0|sweep-0|None
122_1|OUT_OF_MEMORY|0:125|sweep-0|None
122_2|CANCELLED by 1000|0:0|sweep-0|None
122_3|NODE_FAIL|1:0|sweep-0|None
END"""
NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


def states(*jobs: str) -> dict[str, str]:
    return {job: known.state for job, known in SlurmQueue().states(jobs).items()}


def test_squeue_and_sacct_together_know_all_jobs(command: Command) -> None:
    command("squeue", SQUEUE)
    command("sacct", SACCT)
    jobs = ("123_0", "123_1", "124", "125", "126", "122_0", "122_1", "122_2", "122_3", "99")
    assert states(*jobs) == {
        "123_0": "running", "123_1": "pending", "124": "failed", "125": "cancelled", "126": "completing",
        "122_0": "completed", "122_1": "out_of_memory", "122_2": "cancelled", "122_3": "node_fail", "99": "gone",
    }  # fmt: skip


def test_exit_codes_reasons_and_names_are_read_from_both(command: Command) -> None:
    command("squeue", SQUEUE)
    command("sacct", SACCT)
    known = SlurmQueue().states(["124", "125", "123_1", "122_3"])
    assert (known["124"].exit_code, known["125"].exit_code, known["122_3"].exit_code) == (1, 128 + 15, 1)
    assert (known["123_1"].reason, known["123_1"].name) == ("JobArrayTaskLimit", "sweep-1")


def test_without_accounting_a_job_that_squeue_has_forgotten_is_gone(command: Command) -> None:
    command("squeue", SQUEUE)
    command("sacct", f"echo asked >> asked; {NO_ACCOUNTING}")
    assert states("122_0", "123_0") == {"122_0": "gone", "123_0": "running"}


def test_an_sacct_that_fails_is_not_asked_again_at_every_look(command: Command, tmp_path: Path) -> None:
    command("squeue", SQUEUE)
    command("sacct", f"echo asked >> asked; {NO_ACCOUNTING}")
    queue = SlurmQueue()
    for _ in range(3):
        queue.states(["122_0"])
    assert (tmp_path / "asked").read_text().count("asked") == 1


@pytest.mark.parametrize("squeue", ["echo 'Unable to contact slurm controller' >&2; exit 1", "exec sleep 60", None])
def test_a_slurm_that_does_not_answer_leaves_states_unknown_and_never_hangs(
    squeue: str | None, command: Command
) -> None:
    if squeue:
        command("squeue", squeue)
    began = time.monotonic()
    known = SlurmQueue(SlurmClient(timeout_s=0.5)).states(["123_0"])["123_0"]
    assert known.state == "unknown" and "Slurm does not answer" in known.reason
    assert time.monotonic() - began < 10


def test_nothing_is_asked_about_no_jobs(command: Command, tmp_path: Path) -> None:
    for program in ("squeue", "sacct"):
        command(program, "echo asked >> asked")
    assert SlurmQueue().states([]) == {} and not (tmp_path / "asked").exists()
    SlurmQueue().states(["1"])
    assert (tmp_path / "asked").exists(), "about a job they are asked"


def test_jobs_are_found_by_their_name(command: Command) -> None:
    command("squeue", SQUEUE)
    command("sacct", NO_ACCOUNTING)
    assert SlurmQueue().named("sweep-1") == ["123_0", "123_1"]
    assert SlurmQueue().named("sweep-9") == []
