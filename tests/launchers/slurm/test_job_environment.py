"""What a rank knows of its own job: whether it is in one, what was edited while it waited, and the way back."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from megdet.launchers.jobs import job_environment_of
from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.job_environment import SlurmJobEnvironment
from megdet.runs.folder import RunFolder
from tests.launchers.conftest import Command
from tests.launchers.slurm.submitted import submit

OF_SUBMITIT = {"SUBMITIT_EXECUTOR": "slurm"}


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "attempt"),
    [
        ({"SLURM_JOB_ID": "9", **OF_SUBMITIT}, SlurmAttempt("9", "9", 0)),
        (
            {
                "SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2",
                **OF_SUBMITIT,
            },
            SlurmAttempt("9_3", "9", 2),
        ),
        ({}, None),
        ({"SLURM_JOB_ID": "9"}, None),
        ({"SUBMITIT_EXECUTOR": "local"}, None),
    ],
)  # fmt: skip
def test_a_process_knows_the_job_that_it_is_part_of(
    environment: Mapping[str, str], attempt: SlurmAttempt | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert SlurmAttempt.here() == attempt


def test_only_the_job_that_was_submitted_for_a_run_is_requeued_by_it(
    planned_run: RunFolder, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(planned_run)
    command("scontrol", "echo $@ >> asked")
    for name, value in OF_SUBMITIT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    outside = SlurmJobEnvironment(planned_run)
    assert not outside.can_requeue and not outside.requeue(), "another job"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    inside = SlurmJobEnvironment(planned_run)
    assert inside.can_requeue and inside.requeue()
    assert (planned_run.path.parents[1] / "asked").read_text() == "requeue 7\n"
    command("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    assert not inside.requeue()


def test_a_run_s_launcher_decides_what_its_ranks_know(planned_run: RunFolder) -> None:
    by_hand = job_environment_of(planned_run)
    assert not by_hand.can_requeue and not by_hand.requeue() and by_hand.edits_since_submission() == []
    submit(planned_run)
    planned_run.plan.write_text(planned_run.plan.read_text() + " ")
    assert job_environment_of(planned_run).edits_since_submission() == ["plan"]
