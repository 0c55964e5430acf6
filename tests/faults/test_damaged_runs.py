"""Faults of one run's files: that run says what is wrong, the others are seen as ever, and the cause is never lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdet import cli
from megdet.analysis.frames import load_runs
from megdet.config.experiments import Asked
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs
from megdet.runs import causes, files
from megdet.runs.folder import RunFolder
from megdet.runs.folder import folder_of as run_folder_of
from megdet.runs.status import Status
from megdet.runs.sweep_folder import record_sweep, sweep_folders
from megdet.sweep.points import plan_points, to_start
from megdet.sweep.ready import make_ready
from megdet.training.ending import record_failure
from tests.faults.runs import a_plan
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned, stand_of

UNKNOWN = '{"status": "on holiday", "attempts": 1, "started": "2026-11-20T10:00:00+00:00"}'
NO_NUMBER = '{"status": "running", "attempts": 1, "started": "2026-11-20T10:00:00+00:00", "step": "many"}'
DAMAGES = {
    "empty": b"", "cut_short": b'{"status": "runn', "garbage": b"\x00\x01", "not_utf8": b"\xff\xfe{}",
    "a_list": b"[]", "a_number": b"5", "unknown_status": UNKNOWN.encode(), "no_number": NO_NUMBER.encode(),
    "nested": b"[" * 100_000,
}  # fmt: skip


@pytest.fixture(params=sorted(DAMAGES))
def two_runs(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """One whose state.json is damaged, and one beside it."""
    damaged, good = (RunFolder(fabricate_run(tmp_path, {"seed": seed})) for seed in (0, 1))
    damaged.state_file.write_bytes(DAMAGES[request.param])
    return damaged, good


def test_a_damaged_state_is_said_of_its_run_and_hides_no_other(
    two_runs: tuple[RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, good = two_runs
    runs = str(damaged.path.parent)
    assert cli.main(["status", runs]) == 0
    table = capsys.readouterr().out
    assert "1 interrupted" in table and "1 finished" in table and "state.json is damaged" in table
    assert cli.main(["why", runs]) == 0
    why = capsys.readouterr().out
    assert "damaged records: 1 run" in why and damaged.name in why and good.name not in why
    frames = load_runs(runs)
    assert sorted(frames.runs["status"]) == ["finished", "interrupted"]


def test_a_run_with_a_damaged_state_is_launched_again(tmp_path: Path, shapes_root: Path) -> None:
    asked = Asked((), a_plan(tmp_path, shapes_root).config)
    (point,) = plan_points([asked], to_run_here=False)
    assert point.plan is not None
    folder = owned(run_folder_of(point.plan).path)
    folder.state_file.write_text(UNKNOWN)
    points = plan_points([asked], to_run_here=False)
    assert points[0].status == Status.INTERRUPTED and to_start(points, "resume") == [points[0].plan]


def test_a_damaged_submission_is_a_failure_of_its_run_alone(tmp_path: Path) -> None:
    damaged, good = (RunFolder(fabricate_run(tmp_path, {"seed": seed}, status="running")) for seed in (0, 1))
    for content in (b"", b"\xff", b"{}", b'{"launcher": "elsewhere"}'):
        damaged.submission_file.write_bytes(content)
        stands = Jobs().stands_of([damaged, good])
        assert stands[damaged].status == Status.FAILED and "submission.json" in stands[damaged].why
        assert stands[good].status == Status.INTERRUPTED


@pytest.mark.parametrize("key", ["run_id", "layout", "schedule", "config", "notes"])
def test_a_plan_that_lacks_a_key_hides_no_other_run(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, good = (RunFolder(fabricate_run(tmp_path, {"seed": seed})) for seed in (0, 1))
    plan = json.loads(damaged.plan.read_text())
    del plan[key]
    damaged.plan.write_text(json.dumps(plan))
    assert cli.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"plan.json is damaged ('{key}')" in out and good.name in out
    assert load_runs(str(tmp_path)).runs["run_id"].tolist() == [good.name]
    assert f"plan.json is damaged ('{key}')" in capsys.readouterr().err


def test_a_damaged_journal_hides_no_other_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged, good = (RunFolder(fabricate_run(tmp_path, {"seed": seed})) for seed in (0, 1))
    damaged.journal.write_bytes(b"\xff\xff\n" + damaged.journal.read_bytes())
    assert cli.main(["status", str(tmp_path)]) == 0
    assert "metrics.jsonl, line 1 is damaged" in capsys.readouterr().out
    assert load_runs(str(tmp_path)).runs["run_id"].tolist() == [good.name]


def test_a_damaged_sweep_hides_no_other_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sweep(*run_ids: str) -> Path:
        return record_sweep(
            tmp_path, name="a", command="b", run_ids=run_ids, uri=None, experiment="megdet", settings={}
        )

    damaged, good = sweep("r1", "r2"), sweep("r1", "r3")
    (damaged / "sweep.json").write_text("")
    assert sweep_folders(tmp_path) == [good]
    assert f"left out: {damaged / 'sweep.json'} is damaged" in capsys.readouterr().err


@contextmanager
def full_disk(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk without room, but for what the run has kept back."""
    real = files.replacing

    def replacing(path: Path, **given: Any) -> Any:
        if (folder.path / ".reserve").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, **given)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replacing", replacing)
        yield


def test_a_full_disk_leaves_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = owned(fabricate_run(tmp_path, {}, status="running", epochs=1))
    folder.reserve_room()
    with full_disk(folder, monkeypatch):
        with pytest.raises(OSError, match="No space left") as full:
            files.replace_file(folder.path / "x", "y")
        record_failure(folder, 0, full.value)
    stand = stand_of(folder)
    assert stand.status == Status.FAILED and "No space left on device" in stand.why
    diagnosis = Jobs().look_at([folder]).diagnosis(folder)
    assert diagnosis is not None and diagnosis.cause is causes.CONFIG_OR_DATA and diagnosis.rank == 0


def test_a_rank_that_dies_before_its_log_begins_says_why(tmp_path: Path, shapes_root: Path) -> None:
    plan = a_plan(tmp_path / "here", shapes_root)
    folder = owned(run_folder_of(plan).path)
    folder.write_plan(plan.to_json())
    broken = tmp_path / "site" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-m", "megdet.run", str(folder.plan)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    failure = folder.failure()
    assert process.returncode == 1 and failure is not None and failure.error == "ImportError"
    assert "libcudart.so.12" in failure.reason and "libcudart.so.12" in folder.log(0).read_text()
    assert stand_of(folder).status == Status.FAILED


def test_a_runs_folder_that_cannot_be_written_is_one_message(tmp_path: Path, shapes_root: Path) -> None:
    (tmp_path / "file").write_text("")
    plan = a_plan(tmp_path, shapes_root)
    plan = replace(plan, config=replace(plan.config, runs_dir=str(tmp_path / "file" / "runs")))
    with pytest.raises(
        UserError, match=r"runs_dir=.*file/runs cannot be written \(Not a directory\); .*runs_dir=FOLDER"
    ):
        make_ready([plan], anew=False)
