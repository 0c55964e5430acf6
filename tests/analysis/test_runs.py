from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from megdet.analysis.runs import RunRecord, load_runs, select
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal, read_journal
from megdet.tracking.mirror import mirror
from tests.analysis.under_way import being_run
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def a_few_runs(runs: Path) -> list[Path]:
    return [
        fabricate_run(runs, {"batch": 16}, mmAP=37.04),
        fabricate_run(runs, {"batch": 256, "bn_size": 32, "seed": 2, "lr.scale": 0.5}, status="running", epochs=3),
        fabricate_run(runs, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1),
        fabricate_run(runs, {"batch": 32, "model.name": "r18_fpn"}, status="failed", epochs=0),
    ]


def by_batch(runs: list[RunRecord]) -> dict[int, RunRecord]:
    return {run.batch: run for run in runs}


def test_a_runs_folder_gives_complete_and_incomplete_runs(tmp_path: Path) -> None:
    folders = a_few_runs(tmp_path)
    with being_run(folders[1]):
        runs = by_batch(load_runs(str(tmp_path)))
    assert {batch: run.state for batch, run in runs.items()} == {
        16: "finished", 256: "running", 64: "diverged", 32: "failed"
    }  # fmt: skip
    done = runs[16]
    assert (done.bn_size, done.schedule, done.lr_scale, done.gpus, done.seed) == (16, "normal", 1.0, 8, 0)
    assert (done.model, done.data, done.train_s, done.milestones) == ("r50_fpn", "coco2017", 36000, [8, 10])
    assert done.final["mmAP"] == pytest.approx(37.04) and len(done.epochs) == 11
    assert (runs[256].lr_scale, runs[256].seed, len(runs[256].epochs), runs[256].final) == (0.5, 2, 3, {})


def test_mlflow_gives_the_same_runs_as_the_folder(tmp_path: Path) -> None:
    folders = a_few_runs(tmp_path / "runs")
    uri = new_database(tmp_path)
    for folder in folders:
        assert mirror(RunFolder(folder), uri, "megdet")
    with being_run(folders[1]):
        ours, theirs = load_runs(str(tmp_path / "runs")), load_runs(uri)
    assert len(ours) == len(theirs) == 4
    for run, mirrored in zip(ours, theirs, strict=True):
        for name in ("run_id", "experiment_id", "experiment", "state", "settings", "seed", "gpus", "commit", "dirty"):
            assert getattr(run, name) == getattr(mirrored, name), name
        assert mirrored.train_s == pytest.approx(run.train_s)
        assert mirrored.final == pytest.approx(run.final)
        assert [line["mmAP"] for line in mirrored.epochs] == [line["mmAP"] for line in run.epochs]
        assert [line["train_s"] for line in mirrored.epochs] == [line["train_s"] for line in run.epochs]


def test_mlflow_runs_of_others_are_left_out_and_one_run_in_two_experiments_counts_once(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    uri = new_database(tmp_path)
    assert mirror(RunFolder(folder), uri, "one") and mirror(RunFolder(folder), uri, "other")
    client = MlflowClient(uri)
    client.create_run("0")
    assert [run.run_id for run in select(load_runs(uri))] == [folder.name]


def test_a_run_that_has_not_started_is_new(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {}, epochs=0)
    (folder / "state.json").unlink()
    (folder / "metrics.jsonl").unlink()
    (run,) = load_runs(str(tmp_path))
    assert (run.state, run.train_s, run.epochs, run.final) == ("new", 0, (), {})


def test_a_run_whose_launcher_was_killed_is_interrupted_though_it_could_not_say_so(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {}, status="running", epochs=3)
    (run,) = load_runs(str(tmp_path))
    assert (run.state, run.reason) == ("interrupted", "its launcher is gone")
    assert not (folder / ".lock").exists(), "reading writes nothing"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plan.json", '{"run_id": "b16', "plan.json is damaged"), ("plan.json", "{}", "plan.json is damaged"),
        ("metrics.jsonl", '{"kind": "ep\n', "metrics.jsonl, line 1 is damaged"),
        ("state.json", '{"state"', "state.json is damaged"), ("submission.json", "{", "submission.json is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_left_out_with_one_line_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    damaged = fabricate_run(tmp_path, {"batch": 16}, status="failed", epochs=1)
    (damaged / name).write_text(text)
    with pytest.raises(UserError, match="none of its 1 runs"):
        load_runs(str(tmp_path))
    capsys.readouterr()
    fabricate_run(tmp_path, {"batch": 32})
    assert [run.batch for run in load_runs(str(tmp_path))] == [32]
    error = capsys.readouterr().err
    assert error.startswith(f"left out: {damaged}/") and said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("lost", [5, 11])
def test_a_finished_run_whose_journal_has_lost_an_epoch_gives_no_number(tmp_path: Path, lost: int) -> None:
    folder = fabricate_run(tmp_path, {})
    lines = [line for line in read_journal(RunFolder(folder)) if (line["kind"], line.get("epoch")) != ("epoch", lost)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = load_runs(str(tmp_path))
    assert (run.state, run.final) == ("failed", {}) and "10 of 11 epochs" in run.reason


def attempt(folder: Path, *, step: int, trained: bool = True, **values: Any) -> None:
    """The journal of an attempt from `step` on; `trained`: it came to the epoch that ends there."""
    with Journal(owned(folder)) as journal:
        journal.event("resumed" if step else "started", step=step, **values)
        if trained:
            journal.epoch(step + 1, step=step + 1)


def read_attempts(folder: Path) -> RunRecord:
    (run,) = load_runs(str(folder.parent), curves=())
    return run


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    folder = fabricate_run(tmp_path, {}, epochs=0, status="interrupted", commit="p" * 40)
    (folder / "metrics.jsonl").unlink()
    return folder


def test_a_run_is_of_all_commits_that_trained_it_and_changed_if_one_was(planned: Path) -> None:
    attempt(planned, step=0, commit="a", dirty=True)
    attempt(planned, step=1, commit="a", dirty=False)
    attempt(planned, step=2, commit="b", dirty=False)
    run = read_attempts(planned)
    assert (run.commits, run.commit, run.dirty) == (("a", "b"), "b", True)


def test_an_attempt_whose_work_was_done_again_does_not_count(planned: Path) -> None:
    attempt(planned, step=0, trained=False, commit="x", dirty=True, data_sha256="x")
    attempt(planned, step=0, commit="a", dirty=False, data_sha256="1")
    attempt(planned, step=1, trained=False, commit="y", dirty=True, data_sha256="y")
    attempt(planned, step=1, commit="b", dirty=False, data_sha256="1")
    run = read_attempts(planned)
    assert (run.commits, run.dirty, run.data_sha256) == (("a", "b"), False, "1")


def test_journals_that_name_no_commit_are_of_the_plans(planned: Path) -> None:
    attempt(planned, step=0)
    run = read_attempts(planned)
    assert (run.commits, run.commit, run.dirty) == (("p" * 40,), "p" * 40, False)
    assert (run.data_sha256, run.weights_sha256) == ("", "")
    attempt(planned, step=1, commit="b", dirty=False, data_sha256="2")
    run = read_attempts(planned)
    assert run.commits == ("unknown", "b") and run.data_sha256 == "", "what it began with is not known"


def test_other_data_after_a_resume_shows_and_weights_are_those_that_were_loaded(planned: Path) -> None:
    attempt(planned, step=0, trained=False, commit="a", dirty=False, data_sha256="1", weights_sha256="w")
    attempt(planned, step=0, commit="a", dirty=False, data_sha256="1")  # from a checkpoint of no step
    attempt(planned, step=1, commit="a", dirty=False, data_sha256="2")
    run = read_attempts(planned)
    assert (run.data_sha256, run.weights_sha256) == ("1 → 2", "w")


def test_without_a_source_the_runs_folder_comes_first_then_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = fabricate_run(tmp_path / "elsewhere", {"batch": 32})
    mirror(RunFolder(folder), new_database(tmp_path), "megdet")
    monkeypatch.chdir(tmp_path)
    assert [run.batch for run in load_runs()] == [32]
    fabricate_run(tmp_path / "runs", {"batch": 16})
    assert [run.batch for run in load_runs()] == [16]


def test_missing_runs_are_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in (
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(tmp_path / "empty"), "no run"),
        (f"sqlite:///{tmp_path}/nowhere.db", "does not exist"),
        (new_database(tmp_path), "no run of megdet"),
        ("http://127.0.0.1:1", "127.0.0.1:1"),
        ("ftp://somewhere/x", "neither a tracking server nor a database"),
    ):
        with pytest.raises(UserError, match=message):
            load_runs(source)
    assert not (tmp_path / "nowhere.db").exists()


def test_a_run_folder_from_before_settings_were_nested_is_left_out_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = fabricate_run(tmp_path, {"batch": 16}), fabricate_run(tmp_path, {"batch": 32})
    plan = json.loads((old / "plan.json").read_text())
    plan["config"]["model"] = {"name": "r50_fpn", "backbone": "resnet50", "rpn_nms": 0.7}
    (old / "plan.json").write_text(json.dumps(plan))
    assert [run.run_id for run in load_runs(str(tmp_path))] == [new.name]
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"left out: {old}: ") and "check out the commit it names" in said


def test_a_filter_that_leaves_nothing_says_what_there_is(tmp_path: Path) -> None:
    a_few_runs(tmp_path)
    runs = load_runs(str(tmp_path))
    assert [run.batch for run in select(runs, model="r18_fpn", data=None)] == [32]
    with pytest.raises(UserError, match="r18_fpn, r50_fpn"):
        select(runs, model="r101")


def test_analysis_loads_no_torch() -> None:
    scripts = "megdet.analysis.make_tables, analysis.make_figures, analysis.make_report"
    program = f"import sys, {scripts}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
