"""Runs as MLflow has them: which of several count, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.analysis.frames import load_runs, read_runs
from megdet.analysis.wanted import select
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal
from megdet.tracking.mirror import mirror
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_database(tmp_path / "store")


def begun_anew(folder: Path, *, mmAP: float) -> Path:
    """The same run a day later; the old folder is gone."""
    folder.rename(folder.parent / ".replaced")
    new = fabricate_run(folder.parent, {}, mmAP=mmAP)
    state = RunFolder(new).state()
    assert state is not None
    owned(new).write_state(replace(state, started="2026-11-21T10:00:00+00:00"))
    return new


def test_a_run_in_two_experiments_is_found_by_either_and_counts_once(tmp_path: Path, uri: str) -> None:
    shared = fabricate_run(tmp_path / "runs", {})
    other = fabricate_run(tmp_path / "runs", {"seed": 1})
    assert (
        mirror(RunFolder(shared), uri, "small")
        and mirror(RunFolder(shared), uri, "later")
        and mirror(RunFolder(other), uri, "later")
    )
    found = read_runs(uri)
    assert list(select(found, experiment="small").runs["run_id"]) == [shared.name]
    assert set(select(found, experiment="later").runs["run_id"]) == {shared.name, other.name}
    assert list(load_runs(uri).runs["run_id"]) == sorted([shared.name, other.name])


def test_mlflow_knows_of_a_resumed_run_what_its_folder_knows(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, epochs=0)
    with Journal(owned(folder)) as journal:
        for epoch, commit in ((1, "a" * 40), (2, "b" * 40)):
            made_from = {
                "commit": commit, "dirty": epoch == 1, "data_sha256": "1" * 12, "weights_sha256": "2" * 12,
                "device": f"GPU {epoch}",
            }  # fmt: skip
            journal.event("resumed", step=10 * (epoch - 1), attempt=epoch, **made_from)
            journal.epoch(epoch, step=10 * epoch, mmAP=30.0)
    assert mirror(RunFolder(folder), uri, "small")
    here, there = (load_runs(source).runs.iloc[0] for source in (str(folder.parent), uri))
    assert here.commits == there.commits == ("a" * 40, "b" * 40)
    assert here.commit == there.commit == "b" * 40 and here.dirty and there.dirty
    assert here.device == there.device == "GPU 1 → GPU 2"
    assert (there.data_sha256, there.weights_sha256) == (here.data_sha256, here.weights_sha256) == ("1" * 12, "2" * 12)


def test_a_journal_that_lacks_the_last_epoch_gives_mlflow_no_result(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, epochs=10)
    assert mirror(RunFolder(folder), uri, "small")
    runs = load_runs(uri).runs
    assert runs["mmAP"].isna().all() and "loss" not in runs


def test_of_two_experiments_that_counts_whose_run_was_begun_last_then_come_furthest(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, mmAP=37.0)
    assert mirror(RunFolder(folder), uri, "z")
    new = begun_anew(folder, mmAP=30.0)
    assert mirror(RunFolder(new), uri, "a")
    early = fabricate_run(tmp_path / "elsewhere", {"seed": 1}, epochs=2, status="running")
    assert mirror(RunFolder(early), uri, "a")
    assert mirror(RunFolder(fabricate_run(tmp_path / "runs", {"seed": 1})), uri, "z")
    found = read_runs(uri).runs.fillna({"mmAP": -1.0})
    both = [list(zip(part["experiment"], part["mmAP"], strict=True)) for _, part in found.groupby("seed")]
    assert both == [
        [("a", pytest.approx(30.0)), ("z", pytest.approx(37.0))],
        [("z", pytest.approx(37.0)), ("a", -1.0)],
    ]


def test_a_replaced_run_is_left_out(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, mmAP=37.0)
    assert mirror(RunFolder(folder), uri, "small")
    assert mirror(RunFolder(begun_anew(folder, mmAP=30.0)), uri, "small")
    found = load_runs(uri)
    assert found.runs["mmAP"].item() == pytest.approx(30.0) and found.epochs["mmAP"].iloc[-1] == pytest.approx(30.0)
    (newest,) = [run for run in MlflowClient(uri).search_runs(["1", "2"]) if run.data.tags["status"] == "finished"]
    MlflowClient(uri).delete_run(newest.info.run_id)
    with pytest.raises(UserError, match="no run of megdet"):
        load_runs(uri)


def test_a_run_that_a_push_has_only_just_made_is_left_out_with_a_line(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    assert mirror(RunFolder(folder), uri, "small")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    made = client.create_run(experiment.experiment_id, tags={"run_id": "b64-bn16-normal-s0-12345678"})
    client.log_param(made.info.run_id, "seed", "0")
    assert list(load_runs(uri).runs["run_id"]) == [folder.name]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "b64-bn16-normal-s0-12345678" in said[0] and made.info.run_id in said[0]
    assert "megdet sync" in said[0]


def test_of_an_epoch_that_was_pushed_twice_the_later_number_counts(tmp_path: Path, uri: str) -> None:
    assert mirror(RunFolder(fabricate_run(tmp_path / "runs", {}, mmAP=33.0)), uri, "small")
    (mlflow_id,) = load_runs(uri).runs["mlflow_run_id"]
    MlflowClient(uri).log_metric(mlflow_id, "mmAP", 1.5, step=2)  # now: after what the journal says
    epochs = load_runs(uri).epochs.set_index("epoch")["mmAP"]
    assert len(epochs) == 11 and (epochs[1], epochs[2], epochs[3]) == pytest.approx((3.0, 1.5, 9.0))


def test_a_run_from_before_settings_were_nested_is_left_out_with_a_line(
    tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    assert mirror(RunFolder(folder), uri, "small")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    made = client.create_run(experiment.experiment_id, tags={"run_id": "b64-bn16-normal-s0-12345678", "gpus": "8"})
    for name, value in {"seed": "0", "model.rpn_nms": "0.7"}.items():
        client.log_param(made.info.run_id, name, value)
    assert list(load_runs(uri).runs["run_id"]) == [folder.name]
    [said] = capsys.readouterr().err.splitlines()
    assert "b64-bn16-normal-s0-12345678" in said and "before settings were nested" in said
