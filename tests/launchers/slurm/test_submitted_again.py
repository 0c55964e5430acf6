"""A launcher that waits submits again what Slurm's side has ended for good; a mistake of the code it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder, folder_of
from tests.launchers import fake_slurm
from tests.launchers.stand_in import write_program

KILLS_ITS_SCRIPT = """
before = run.state()
state("running")
if before is None or {always}:
    os.kill(os.getpgrp(), signal.SIGKILL)  # the job's script is the leader of its processes
    time.sleep(60)
again("finished")
"""


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(key, value)


def launched(tmp_path: Path, body: str, *, max_retries: int = 3) -> tuple[ExitCode, RunFolder]:
    """The exit code of a launcher that waits, and the folder of its run of one rank."""
    cluster = ClusterSettings(name="paper", gpus_per_node=1, cpus_per_gpu=1, time_min=10, max_retries=max_retries)
    plan = make_plan(Config(batch=4, bn_size=4, gpus=1, cluster=cluster, runs_dir=str(tmp_path / "runs")))
    program = write_program(tmp_path / "rank.py", body)
    code = SlurmLauncher(wait=True, program=program).run([plan], [], mirror=ignored)
    return code, folder_of(plan)


def ignored(plan: Plan) -> None:
    """Stands in for MLflow."""


def attempts_of(folder: RunFolder) -> int:
    state = folder.state()
    assert state is not None
    return state.attempts


@pytest.mark.slow
def test_a_run_whose_job_script_was_killed_is_submitted_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = launched(tmp_path, KILLS_ITS_SCRIPT.format(always=False))
    assert code == ExitCode.OK and attempts_of(folder) == 2
    assert f"submitted again, as Slurm ended them: {folder.name}" in capsys.readouterr().out
    submission = Submission.read(folder)
    assert submission is not None and len(submission.history) == 1


@pytest.mark.slow
def test_without_progress_it_is_submitted_again_as_often_as_is_said(tmp_path: Path) -> None:
    code, folder = launched(tmp_path, KILLS_ITS_SCRIPT.format(always=True), max_retries=2)
    assert code == ExitCode.RUN_FAILED and attempts_of(folder) == 3


def test_what_a_mistake_of_the_code_has_ended_is_not(tmp_path: Path) -> None:
    code, folder = launched(
        tmp_path,
        """
        state("running")
        run.write_failure(Failure.of_exception(KeyError("it"), rank=0, reason="KeyError: 'it'", log=()))
        again("failed", reason="KeyError: 'it'")
        sys.exit(1)
        """,
    )
    failure = folder.failure()
    assert code == ExitCode.RUN_FAILED and attempts_of(folder) == 1 and failure and failure.error == "KeyError"
