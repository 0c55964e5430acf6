"""Whatever has happened to a file of a run: its run says so in one message, or goes on with what is right; no other
run is hidden; nothing is a traceback, and nothing that was damaged is taken for a number.

The tests try some hundred, the same each time; HYPOTHESIS_PROFILE=thorough tries 10,000 of each kind. Plans have
tests/planning/test_properties.py besides, annotation files and images tests/data.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from megdet.analysis import make_tables
from megdet.analysis.frames import load_runs
from megdet.cli.table import table_of
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs
from megdet.runs.beats import Beat, write_beat
from megdet.runs.classes import Classes
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder
from megdet.runs.journal import KINDS, read_journal
from megdet.runs.status import Stand, Status
from megdet.runs.sweep_folder import record_sweep
from megdet.tracking.note import note, noted_in
from tests.runs.damage import damaged_json, damaged_lines
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned


class Runs:
    """A good run, and one of each status whose files are about to go wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good, self.finished = (RunFolder(fabricate_run(path, {"seed": seed}, epochs=None)) for seed in (0, 1))
        self.failed = RunFolder(fabricate_run(path, {"seed": 2}, status="failed", epochs=1, reason="KeyError: 'x'"))
        self.running = RunFolder(fabricate_run(path, {"seed": 3}, status="running", epochs=1))
        self.failed.owned_by("test").write_failure(
            Failure(1, "KeyError", "KeyError: 'x'", "Traceback\nKeyError: 'x'", ("a", "b"), "2026-11-20T10:00:00+00:00")
        )
        write_beat(owned(self.running.path), Beat("test", 0, 7, "evaluating", progress_at=1.7e9, limit_s=60.0))
        owned(self.finished.path).write_classes(Classes.of([1, 2], ["cup", "dog"]))
        self.finished.note_submission("slurm", SUBMISSION)
        note(self.finished.path, NOTE)
        names = [self.good.name, self.finished.name]
        self.sweep = record_sweep(
            path, name="a", command="b", run_ids=names, uri=None, experiment="megdet", settings={"batch": "16"}
        )


SUBMISSION = {
    "job": "7", "array": "7", "name": "megdet-1120-120000-ab12-1", "submitted": "2026-11-20T10:00:00+00:00",
    "log": "7_0_log.out", "plan_sha256": "ab", "code_sha256": "cd", "attempts_before": 0, "retries": 0,
    "retried_from": 0.0, "cancelled": None, "history": ["5"],
}  # fmt: skip
NOTE = {
    "run_id": "ab", "uri": "sqlite:///mlflow.db", "experiment_id": "1", "folder": "x", "epoch": 1, "step": 10,
    "final": False, "artifacts": {"plan.json": [1, 2]},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("no_slurm")))
        yield Runs(tmp_path_factory.mktemp("runs"))


def files_of(runs: Runs) -> Mapping[str, Path]:
    return {
        "plan": runs.finished.plan, "journal": runs.finished.journal, "state": runs.finished.state_file,
        "state under way": runs.running.state_file, "journal under way": runs.running.journal,
        "owner": runs.running.path / "owner.json", "beat": runs.running.beats / "rank0.json",
        "failure": runs.failed.failure_file, "submission": runs.finished.submission_file,
        "classes": runs.finished.path / "classes.json", "MLflow's note": runs.finished.path / "mlflow.json",
        "sweep": runs.sweep / "sweep.json",
    }  # fmt: skip


KINDS_OF_FILES = (
    "plan", "journal", "state", "state under way", "journal under way", "owner", "beat", "failure", "submission",
    "classes", "MLflow's note", "sweep",
)  # fmt: skip


@contextmanager
def with_content(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def damaged(path: Path) -> st.SearchStrategy[bytes]:
    return damaged_lines(path.read_bytes()) if path.suffix == ".jsonl" else damaged_json(path.read_bytes())


def one_line(text: str) -> bool:
    return "\n" not in text and len(text) < 2000


@pytest.mark.slow
@given(kind=st.sampled_from(KINDS_OF_FILES), data=st.data())
def test_a_damaged_file_of_one_run_is_no_traceback_and_hides_no_other_run(
    kind: str, data: st.DataObject, runs: Runs
) -> None:
    path = files_of(runs)[kind]
    folders = [runs.good, runs.finished, runs.failed, runs.running]
    with with_content(path, data.draw(damaged(path))):
        look = Jobs().look_at(folders)
        stands = {folder: look.stand(folder) for folder in folders}
        assert stands[runs.good] == Stand(Status.FINISHED)
        assert all(one_line(stand.why) for stand in stands.values()), stands
        for folder, stand in stands.items():
            found = look.diagnosis(folder, stand)
            assert found is None or (found.cause.advice and isinstance(found.reason, str))
        shown = Console(width=240, record=True, file=io.StringIO())
        shown.print(table_of(stands))
        text = shown.export_text()
        assert all(folder.name in text for folder in folders) and "\x1b" not in text
        frames = load_runs(str(runs.path))
        assert runs.good.name in frames.runs["run_id"].tolist()
        noted_in(runs.finished.path)
        for act in (runs.finished.classes, runs.finished.read_plan, runs.running.current_owner):
            try:
                act()
            except UserError as error:
                assert str(path) in str(error)


@pytest.mark.slow
def test_true_in_the_place_of_any_number_of_a_plan_is_no_traceback_in_a_table(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    written = runs.finished.plan.read_text()
    for place in numbers_in(json.loads(written)["config"]):
        plan = json.loads(written)
        inner = plan["config"]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = True
        with with_content(runs.finished.plan, json.dumps(plan).encode()):
            assert make_tables.main(["--from", str(runs.path), "--table", "3"]) == 0, place
            assert "16-base" in capsys.readouterr().out, place


def numbers_in(values: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the numbers of nested values are."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers_in(value, (*place, key))
        elif type(value) in (int, float):
            yield (*place, key)


def is_a(value: Any, *kinds: type) -> bool:
    return type(value) in kinds and not (isinstance(value, float) and not math.isfinite(value))


def is_a_moment(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def state_says(content: bytes) -> dict[str, Any] | None:
    """What a state.json says; None where it is none. Fields that earlier versions did not write have defaults."""
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    if "state" in said:
        said = {"status": said.pop("state"), **said}
    whole = {
        "ended": None, "train_s": 0.0, "eval_s": 0.0, "shared_s": 0.0, "gpu_s": None, "step": 0,
        "reason": None, "journal_bytes": None, **said,
    }  # fmt: skip
    right = {
        "status": whole.get("status") in list(Status),
        "attempts": is_a(whole.get("attempts"), int) and whole["attempts"] >= 1,
        "started": is_a_moment(whole.get("started")),
        "ended": whole["ended"] is None or is_a_moment(whole["ended"]),
        "train_s": is_a(whole["train_s"], int, float) and whole["train_s"] >= 0,
        "eval_s": is_a(whole["eval_s"], int, float) and whole["eval_s"] >= 0,
        "shared_s": is_a(whole["shared_s"], int, float) and whole["shared_s"] >= 0,
        "gpu_s": whole["gpu_s"] is None or (is_a(whole["gpu_s"], int, float) and whole["gpu_s"] >= 0),
        "step": is_a(whole["step"], int) and whole["step"] >= 0,
        "reason": whole["reason"] is None or is_a(whole["reason"], str),
        "journal_bytes": whole["journal_bytes"] is None
        or (is_a(whole["journal_bytes"], int) and whole["journal_bytes"] >= 0),
    }
    return whole if whole.keys() == right.keys() and all(right.values()) else None


@given(data=st.data())
def test_a_damaged_state_is_read_as_it_stands_or_said_to_be_damaged(data: st.DataObject, runs: Runs) -> None:
    folder = runs.finished
    content = data.draw(damaged(folder.state_file))
    with with_content(folder.state_file, content):
        state, said = folder.state(), state_says(content)
        assert (None if state is None else state.to_json()) == said
        assert (f"{folder.state_file} is damaged (" in folder.damage()) == (said is None)


def journal_says(content: bytes) -> list[dict[str, Any]] | None:
    """What a journal says, line by line, without a torn last one; None where a line is none of a journal's."""
    lines = []
    for text in content.decode(errors="replace").split("\n")[:-1]:
        try:
            line = json.loads(text, parse_constant=lambda word: 1 / 0)
        except (ValueError, RecursionError, ZeroDivisionError):
            return None
        if not isinstance(line, dict) or not text.startswith(f'{{"kind": "{line.get("kind")}"'):
            return None
        values = [value for key, value in line.items() if key != "kind"]
        right = line["kind"] in KINDS and is_a(line.get("step"), int) and line["step"] >= 0
        right &= type(line.get("time")) in (int, float)
        if line["kind"] == "event":
            right &= isinstance(line.get("event"), str) and not any(isinstance(value, dict) for value in values)
            right &= is_a(line.get("attempt", 1), int)
        else:
            right &= all(value is None or type(value) in (int, float) for value in values)
            right &= line["kind"] != "epoch" or is_a(line.get("epoch"), int)
        if not right:
            return None
        lines.append(line)
    return lines


@given(data=st.data())
def test_a_damaged_journal_is_read_as_it_stands_or_its_damaged_line_is_named(data: st.DataObject, runs: Runs) -> None:
    folder = runs.running
    content = data.draw(damaged(folder.journal))
    with with_content(folder.journal, content):
        said = journal_says(content)
        if said is not None:
            assert read_journal(folder) == said
            return
        with pytest.raises(UserError, match=r"metrics\.jsonl, line \d+ is damaged; mend or remove it"):
            read_journal(folder)
