"""Every run knows its job, also when a launcher dies at the worst moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.launchers.slurm.intents import declare, fulfil, reconcile, submitting, withdraw
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.submission import Submission, mark_cancelled
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import PlanFor, make_folder


@pytest.fixture
def runs(plan_for: PlanFor) -> list[RunFolder]:
    return [make_folder(plan_for(16, 16, seed=seed)) for seed in (0, 1)]


@pytest.fixture
def payload(runs: list[RunFolder]) -> Payload:
    """Of two runs, before sbatch."""
    return declared("sweep-1", *runs)


def declared(name: str, *runs: RunFolder) -> Payload:
    payload = Payload.of(runs[0].path.parent / ".submissions" / name, runs)
    declare(payload)
    return payload


def word(run: RunFolder, status: Status, *, attempts: int = 1) -> None:
    run.owned_by("test").write_state(RunState(status, attempts=attempts, started="2026-01-01T00:00:00+00:00"))


def submission_of(run: RunFolder) -> Submission:
    submission = Submission.read(run)
    assert submission is not None
    return submission


def test_a_payload_is_read_as_it_was_written(payload: Payload) -> None:
    assert Payload.read(payload.file) == payload


def test_after_sbatch_each_run_knows_its_element_and_the_token_goes(runs: list[RunFolder], payload: Payload) -> None:
    token = payload.folder.with_name("sweep-1.intent")
    assert token.exists()
    fulfil(payload, "123")
    assert not token.exists()
    known = [submission_of(run) for run in runs]
    assert [one.job for one in known] == ["123_0", "123_1"]
    assert known[1].log == str(payload.folder / "123_1_0_log.out") and known[1].name == "sweep-1"


def test_a_rank_that_is_faster_than_the_launcher_notes_the_same(runs: list[RunFolder], payload: Payload) -> None:
    payload.note_job(1, array="123")
    by_rank = submission_of(runs[1])
    word(runs[1], Status.RUNNING)
    fulfil(payload, "123")
    assert submission_of(runs[1]) == by_rank and by_rank.attempts_before == 0


def test_a_run_that_is_submitted_again_remembers_its_older_jobs(runs: list[RunFolder], payload: Payload) -> None:
    fulfil(payload, "123")
    word(runs[0], Status.FAILED, attempts=3)
    fulfil(declared("sweep-2", runs[0]), "200")
    known = submission_of(runs[0])
    assert (known.job, known.history, known.attempts_before) == ("200", ("123_0",), 3)


def test_a_launcher_that_died_after_sbatch_leaves_no_unknown_job(runs: list[RunFolder], payload: Payload) -> None:
    [said] = reconcile(runs[0].path.parent, lambda name: ["123_0", "123_1"] if name == "sweep-1" else [])
    assert "noted now" in said
    assert [submission_of(run).job for run in runs] == ["123_0", "123_1"]
    assert reconcile(runs[0].path.parent, lambda name: pytest.fail("nothing is left to ask about")) == []


def test_a_launcher_that_died_before_sbatch_leaves_nothing(runs: list[RunFolder], payload: Payload) -> None:
    [said] = reconcile(runs[0].path.parent, lambda name: [])
    assert "died before Slurm had its jobs" in said
    assert not payload.folder.exists() and Submission.read(runs[0]) is None
    assert list(payload.folder.parent.glob("*.intent")) == []


def test_jobs_that_slurm_has_forgotten_keep_their_logs(runs: list[RunFolder], payload: Payload) -> None:
    log = payload.folder / "123_0_0_log.out"
    log.touch()
    assert reconcile(runs[0].path.parent, lambda name: []) == []
    assert log.exists() and payload.file.exists()
    assert list(payload.folder.parent.glob("*.intent")) == []


def test_a_slurm_that_does_not_answer_leaves_the_tokens_for_the_next_time(
    runs: list[RunFolder], payload: Payload
) -> None:
    def silent(name: str) -> list[str]:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        reconcile(runs[0].path.parent, silent)
    assert payload.folder.with_name("sweep-1.intent").exists()


def test_what_slurm_refused_is_forgotten(runs: list[RunFolder], payload: Payload) -> None:
    for name in ("12ab.pkl", ".submission_file_12ab.sh"):  # as submitit leaves them
        (payload.folder / name).touch()
    withdraw(payload.folder)
    assert list(payload.folder.parent.iterdir()) == []


def test_the_logs_of_forgotten_jobs_stay_and_do_not_stop_the_next_launch(
    runs: list[RunFolder], payload: Payload
) -> None:
    (payload.folder / "123_0_0_log.out").write_text("what the job said\n")
    withdraw(payload.folder)
    assert [path.name for path in payload.folder.iterdir()] == ["123_0_0_log.out"]
    assert not payload.folder.with_name("sweep-1.intent").exists()


def test_two_launchers_do_not_submit_at_once(tmp_path: Path) -> None:
    with submitting(tmp_path), pytest.raises(UserError, match="another launcher"), submitting(tmp_path):
        pass
    with submitting(tmp_path):
        pass


def test_a_plan_that_is_edited_while_queued_is_noticed(runs: list[RunFolder], payload: Payload) -> None:
    fulfil(payload, "123")
    assert submission_of(runs[0]).edits_since(runs[0]) == []
    runs[0].owned_by("test").write_plan(runs[0].plan.read_text() + " ")
    assert submission_of(runs[0]).edits_since(runs[0]) == ["plan"]


def test_code_that_is_edited_while_queued_is_noticed(
    runs: list[RunFolder], payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    fulfil(payload, "123")
    monkeypatch.setattr("megdet.launchers.slurm.submission.code_sha256", lambda: "other")
    assert submission_of(runs[0]).edits_since(runs[0]) == ["code"]


def test_a_cancellation_is_remembered(runs: list[RunFolder], payload: Payload) -> None:
    mark_cancelled(runs[0])
    assert Submission.read(runs[0]) is None
    fulfil(payload, "123")
    mark_cancelled(runs[0])
    known = submission_of(runs[0])
    assert known.cancelled is not None and known.job == "123_0"


def test_a_damaged_submission_is_an_error_with_a_way_out(runs: list[RunFolder]) -> None:
    for text in ('{"job": 1}', '{"launcher": "slurm", "job": 1}'):
        runs[0].submission_file.write_text(text)
        with pytest.raises(UserError, match=r"sweep\.on_existing=retry_failed"):
            Submission.read(runs[0])
