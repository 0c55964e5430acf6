from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from megdet.analysis.frames import EPOCHS, STEPS, load_runs, read_runs
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.wanted import select
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal, read_journal
from megdet.runs.sweep_folder import record_sweep
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


def test_a_runs_folder_gives_complete_and_incomplete_runs(tmp_path: Path) -> None:
    folders = a_few_runs(tmp_path)
    with being_run(folders[1]):
        found = load_runs(str(tmp_path), steps=STEPS)
    runs = found.runs.set_index("batch")
    assert runs["status"].to_dict() == {16: "finished", 256: "running", 64: "diverged", 32: "failed"}
    done = runs.loc[16]
    assert (done["bn_size"], done["schedule"], done["lr.scale"], done["gpus"], done["seed"]) == (16, "normal", 1, 8, 0)
    assert (done["model"], done["data"], done["train_s"]) == ("r50_fpn", "coco2017", 36000)
    assert done["mmAP"] == pytest.approx(37.04)
    assert (runs["lr.scale"][256], runs["seed"][256]) == (0.5, 2) and pd.isna(runs["mmAP"][256])
    assert counted(found.epochs, found) == {16: 11, 256: 3, 64: 1}
    assert counted(found.steps, found) == {16: 110, 256: 30, 64: 10}


def counted(frame: pd.DataFrame, found: RunFrames) -> dict[int, int]:
    """How many rows each batch has."""
    return frame["run"].map(found.runs["batch"]).value_counts().to_dict()


@pytest.mark.parametrize("from_mlflow", [False, True], ids=["folder", "mlflow"])
def test_columns_have_the_types_that_are_promised(tmp_path: Path, from_mlflow: bool) -> None:
    folders = a_few_runs(tmp_path / "runs")
    uri = new_database(tmp_path)
    for folder in folders if from_mlflow else ():
        assert mirror(RunFolder(folder), uri, "megdet")
    found = load_runs(uri if from_mlflow else str(tmp_path / "runs"), steps=STEPS)
    runs, is_ = found.runs, pd.api.types
    for name in ("seed", "gpus", "batch", "bn_size", "schedule.epochs"):
        assert is_.is_integer_dtype(runs[name]), name
    for name in ("train_s", "lr.scale", "lr.base", "mmAP", "AP50", "loss"):
        assert is_.is_float_dtype(runs[name]), name
    for name in ("dirty", "data.flip"):
        assert is_.is_bool_dtype(runs[name]), name
    for name in ("run_id", "status", "reason", "commit", "folder", "mlflow_run_id", "model", "schedule.milestones"):
        assert all(isinstance(value, str) for value in runs[name]), name
    for name in ("commits", "sweeps"):
        assert all(isinstance(value, tuple) for value in runs[name]), name
    assert runs["optimizer.clip_grad_norm"].isna().all() if "optimizer.clip_grad_norm" in runs else True
    assert {"batch", "lr.scale", "model"} <= set(found.settings) and "seed" not in found.settings
    for frame, names in ((found.epochs, ("epoch", *EPOCHS)), (found.steps, ("step", *STEPS))):
        assert frame["run"].isin(runs.index).all()
        assert all(is_.is_numeric_dtype(frame[name]) for name in names)


def test_frames_join_by_run_as_the_documentation_shows(tmp_path: Path) -> None:
    for seed, mmAP in enumerate((33.0, 44.0)):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, mmAP=mmAP)
    found = load_runs(str(tmp_path))
    of_rows = found.runs.groupby(["batch", "bn_size"])["mmAP"].agg(["mean", "std", "count"])
    # The sample standard deviation of two is their distance over the root of 2.
    assert list(of_rows.loc[(16, 16)]) == pytest.approx([38.5, 11 / 2**0.5, 2])
    by_epoch = found.epochs.join(found.runs["batch"], on="run").pivot_table("mmAP", index="epoch", columns="batch")
    assert list(by_epoch[16]) == pytest.approx([3.5 * epoch for epoch in range(1, 12)])


def test_mlflow_gives_the_same_runs_as_the_folder(tmp_path: Path) -> None:
    folders = a_few_runs(tmp_path / "runs")
    uri = new_database(tmp_path)
    for folder in folders:
        assert mirror(RunFolder(folder), uri, "megdet")
    with being_run(folders[1]):
        ours, theirs = load_runs(str(tmp_path / "runs")), load_runs(uri)
    assert len(theirs.runs) == 4
    ours_runs, theirs_runs = (each.runs.set_index("run_id").drop(columns=OF_THE_SOURCE) for each in (ours, theirs))
    shared = [name for name in ours_runs if name not in ("reason", "train_s")]
    pd.testing.assert_frame_equal(ours_runs[shared], theirs_runs[shared], check_dtype=False)
    assert list(theirs_runs["train_s"]) == pytest.approx(list(ours_runs["train_s"]))
    numbers = [
        each.epochs.join(each.runs["run_id"], on="run").set_index(["run_id", "epoch"])[list(EPOCHS)].sort_index()
        for each in (ours, theirs)
    ]
    pd.testing.assert_frame_equal(*numbers)


OF_THE_SOURCE = ["folder", "mlflow_run_id"]


def test_mlflow_runs_of_others_are_left_out_and_one_run_in_two_experiments_counts_once(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    uri = new_database(tmp_path)
    assert mirror(RunFolder(folder), uri, "one") and mirror(RunFolder(folder), uri, "other")
    client = MlflowClient(uri)
    client.create_run("0")
    assert list(load_runs(uri).runs["run_id"]) == [folder.name]


def test_a_run_that_has_not_started_is_new(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {}, epochs=0)
    (folder / "state.json").unlink()
    (folder / "metrics.jsonl").unlink()
    found = load_runs(str(tmp_path))
    assert (found.runs["status"].item(), found.runs["train_s"].item(), len(found.epochs)) == ("new", 0, 0)
    assert found.runs["mmAP"].isna().all()


def test_a_run_whose_launcher_was_killed_is_interrupted_though_it_could_not_say_so(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {}, status="running", epochs=3)
    run = load_runs(str(tmp_path)).runs.iloc[0]
    assert (run["status"], run["reason"]) == ("interrupted", "its launcher is gone")
    assert not (folder / ".lock").exists(), "reading writes nothing"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plan.json", '{"run_id": "b16', "plan.json is damaged"), ("plan.json", "{}", "plan.json is damaged"),
        ("metrics.jsonl", '{"kind": "ep\n', "metrics.jsonl, line 1 is damaged"),
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
    assert list(load_runs(str(tmp_path)).runs["batch"]) == [32]
    error = capsys.readouterr().err
    assert error.startswith(f"left out: {damaged}/") and said in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "status"), [("state.json", '{"state"', "interrupted"), ("submission.json", "{", "failed")]
)
def test_a_run_whose_state_or_submission_is_damaged_is_there_without_a_result_and_says_so(
    tmp_path: Path, name: str, text: str, status: str
) -> None:
    (fabricate_run(tmp_path, {"batch": 16}, status="failed", epochs=1) / name).write_text(text)
    [run] = load_runs(str(tmp_path)).runs.to_dict("records")
    assert run["status"] == status and f"{name} is damaged" in run["reason"] and "launch" in run["reason"]


@pytest.mark.parametrize("lost", [5, 11])
def test_a_finished_run_whose_journal_has_lost_an_epoch_gives_no_number(tmp_path: Path, lost: int) -> None:
    folder = fabricate_run(tmp_path, {})
    lines = [line for line in read_journal(RunFolder(folder)) if (line["kind"], line.get("epoch")) != ("epoch", lost)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = load_runs(str(tmp_path)).runs.iloc[0]
    assert run["status"] == "failed" and pd.isna(run["mmAP"]) and "10 of 11 epochs" in run["reason"]


def attempt(folder: Path, *, step: int, trained: bool = True, **values: Any) -> None:
    """The journal of an attempt from `step` on; `trained`: it came to the epoch that ends there."""
    with Journal(owned(folder)) as journal:
        journal.event("resumed" if step else "started", step=step, **values)
        if trained:
            journal.epoch(step + 1, step=step + 1)


def read_attempts(folder: Path) -> pd.Series:
    return load_runs(str(folder.parent)).runs.iloc[0]


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
    assert list(load_runs().runs["batch"]) == [32]
    fabricate_run(tmp_path / "runs", {"batch": 16})
    assert list(load_runs().runs["batch"]) == [16]


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
    assert list(load_runs(str(tmp_path)).runs["run_id"]) == [new.name]
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"left out: {old}: ") and "check out the commit it names" in said


def test_a_filter_that_leaves_nothing_says_what_there_is(tmp_path: Path) -> None:
    a_few_runs(tmp_path)
    found = read_runs(str(tmp_path))
    assert list(select(found, model="r18_fpn").runs["batch"]) == [32]
    assert list(load_runs(str(tmp_path), model="r18_fpn").runs["batch"]) == [32]
    with pytest.raises(UserError, match="r18_fpn, r50_fpn"):
        select(found, model="r101")


def test_runs_are_chosen_by_any_setting_fact_or_sweep_and_by_one_of_several_values(tmp_path: Path) -> None:
    a_few_runs(tmp_path)
    found = read_runs(str(tmp_path))
    assert sorted(select(found, batch=(16, 64), bn_size=[16, 0]).runs["batch"]) == [16, 64]
    assert list(select(found, **{"lr.scale": "5e-1"}).runs["batch"]) == [256]
    assert len(select(found, **{"model.bn_in": "[backbone,fpn]"}).runs) == 4
    assert sorted(select(found, seed=0, status=["finished", "diverged"]).runs["batch"]) == [16, 64]
    assert len(select(found).runs) == 4
    for text in ("[0.5,1.0,2]", "[5e-1,1,2.0]", [[0.5, 1, 2]]):
        assert len(select(found, **{"model.anchors.ratios": text}).runs) == 4
    assert len(select(found, **{"model.bn_in": "[fpn,backbone]", "data.flip": "True", "dirty": False}).runs) == 4
    assert sorted(select(found, batch=range(16, 33, 16)).runs["batch"]) == [16, 32]
    for odd in ("[&a [*a]]", "[" * 3000, "[8, 10", "{"):
        with pytest.raises(UserError, match=r"no such run; there is model\.bn_in"):
            select(found, **{"model.bn_in": odd})
    with pytest.raises(UserError, match=r"^seed=7: no such run; there is seed=0, 2$"):
        select(found, seed=(0, 7))
    with pytest.raises(UserError, match=r"^sede=0: no such run; no run has sede; did you mean seed\?$"):
        select(found, sede=0)
    with pytest.raises(UserError, match=r"^frames=0: no such run; no run has frames"):
        select(found, frames=0)


def test_null_chooses_the_runs_without_a_value(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 32, "optimizer.clip_grad_norm": 5.0})
    found = read_runs(str(tmp_path))
    for nothing in ("null", "not set", None):
        assert list(select(found, **{"optimizer.clip_grad_norm": nothing}).runs["batch"]) == [16]
    assert len(select(found, **{"optimizer.clip_grad_norm": "null,5.0"}).runs) == 2
    with pytest.raises(UserError, match=r"there is optimizer\.clip_grad_norm=5, null$"):
        select(found, **{"optimizer.clip_grad_norm": 3})


def test_a_sweep_is_chosen_by_its_name_or_by_the_rows_or_the_experiment_in_it(tmp_path: Path) -> None:
    names = ("table3 evidence seed=0,1", "evidence lr.base=0.01,0.02", "batch=16,32")
    for seed, name in enumerate(names):
        run = fabricate_run(tmp_path, {"batch": 16, "seed": seed})
        record_sweep(tmp_path, name=name, command="", run_ids=[run.name], uri=None, experiment="e", settings={})
    found = read_runs(str(tmp_path))
    for wanted, seeds in (
        ("table3", [0]), ("evidence", [0, 1]), (names[0], [0]), (names[1], [1]), (names[2], [2]),
        ("table3,batch=16", None), ("table3,evidence", [0, 1]), (["table3", names[2]], [0, 2]),
    ):  # fmt: skip
        if seeds is None:
            with pytest.raises(UserError, match="sweep=batch=16: no such run"):
                select(found, sweep=wanted)
        else:
            assert sorted(select(found, sweep=wanted).runs["seed"]) == seeds


def test_a_message_lists_numbers_by_size_and_no_more_than_a_few(tmp_path: Path) -> None:
    for batch in (2, 16, 128):
        for seed in range(5):
            fabricate_run(tmp_path, {"batch": batch, "bn_size": 2, "seed": seed})
    found = read_runs(str(tmp_path))
    with pytest.raises(UserError, match=r"there is batch=2, 16, 128$"):
        select(found, batch=7)
    with pytest.raises(UserError, match=r"and 3 more$"):
        select(found, run_id="nope")


def test_analysis_loads_no_torch() -> None:
    scripts = "megdet.analysis.make_tables, analysis.make_figures, analysis.make_report"
    program = f"import sys, {scripts}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_a_run_of_before_lr_scale_was_there_had_the_whole_learning_rate(tmp_path: Path) -> None:
    for folder in (fabricate_run(tmp_path, {"batch": 16}), fabricate_run(tmp_path, {"batch": 32, "lr.scale": 0.5})):
        plan = json.loads((folder / "plan.json").read_text())
        if plan["config"]["batch"] == 16:
            del plan["config"]["lr"]["scale"]
        (folder / "plan.json").write_text(json.dumps(plan))
    runs = load_runs(str(tmp_path)).runs
    assert runs.set_index("batch")["lr.scale"].to_dict() == {16: 1.0, 32: 0.5}
