from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.runs import RunRecord, load_runs, select
from megdet.errors import UserError
from megdet.tracking.mlflow import mirror
from tests.tracking.databases import new_database
from tests.tracking.fabricate import fabricate_run

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def a_few_runs(runs: Path) -> list[Path]:
    return [
        fabricate_run(runs, {"batch": 16}, mmAP=37.04),
        fabricate_run(runs, {"batch": 256, "bn_size": 32, "seed": 2, "lr.scale": 0.5}, state="running", epochs=3),
        fabricate_run(runs, {"batch": 64, "bn_size": 0}, state="diverged", epochs=1),
        fabricate_run(runs, {"batch": 32, "model.name": "r18_fpn"}, state="failed", epochs=0),
    ]


def by_batch(runs: list[RunRecord]) -> dict[int, RunRecord]:
    return {run.batch: run for run in runs}


def test_a_runs_folder_gives_complete_and_incomplete_runs(tmp_path: Path) -> None:
    a_few_runs(tmp_path)
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
        assert mirror(folder, uri, "megdet")
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
    assert mirror(folder, uri, "one") and mirror(folder, uri, "other")
    client = MlflowClient(uri)
    client.create_run("0")
    assert [run.run_id for run in load_runs(uri)] == [folder.name]


def test_a_run_that_has_not_started_is_planned(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {}, epochs=0)
    (folder / "state.json").unlink()
    (folder / "metrics.jsonl").unlink()
    (run,) = load_runs(str(tmp_path))
    assert (run.state, run.train_s, run.epochs, run.final) == ("planned", 0, (), {})


def test_without_a_source_the_runs_folder_comes_first_then_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = fabricate_run(tmp_path / "elsewhere", {"batch": 32})
    mirror(folder, new_database(tmp_path), "megdet")
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


def test_a_filter_that_leaves_nothing_says_what_there_is(tmp_path: Path) -> None:
    a_few_runs(tmp_path)
    runs = load_runs(str(tmp_path))
    assert [run.batch for run in select(runs, model="r18_fpn", data=None)] == [32]
    with pytest.raises(UserError, match="r18_fpn, r50_fpn"):
        select(runs, model="r101")


def test_analysis_loads_no_torch() -> None:
    scripts = "analysis.make_tables, analysis.make_figures, analysis.make_report"
    program = f"import sys, {scripts}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
