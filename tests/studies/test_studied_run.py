"""A study of a trained run on record: of which weights it is, in the folder and in MLflow."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.planning.plan import make_plan
from megdet.runs.run_files import BN_STUDY, CHECKPOINT, GRADIENT_VARIANCE
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.studies import bn_study, gradient_variance
from megdet.training.assemble import detector_of, optimizer_of
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import Ranks
from megdet.training.state import TrainingState
from tests.runs.folders import owned
from tests.tracking.databases import new_database
from tests.training.test_run import EPOCHS, STEPS_PER_EPOCH, config_of, folder_of

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def interrupted_run(tmp_path: Path, shapes_root: Path, *, uri: str, step: int) -> Path:
    """A tracked run that has made `step` steps, with untrained weights."""
    config = config_of(tmp_path, shapes_root)
    config.tracking.enabled, config.tracking.uri = True, uri
    plan = make_plan(config)
    folder = folder_of(plan)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.to_json())
    owned(folder).write_state(RunState(Status.INTERRUPTED, attempts=1, started="2026-11-20T10:00:00+00:00", step=step))
    detector = detector_of(plan, Ranks.from_environment(), pretrained=False)
    optimizer = optimizer_of(plan, detector)
    Checkpoint.of(plan.run_id, detector, optimizer, TrainingState(step=step)).write(folder / CHECKPOINT)
    return folder


@pytest.mark.parametrize(
    ("program", "file", "arguments"),
    [(gradient_variance, GRADIENT_VARIANCE, ["--batches", "8"]), (bn_study, BN_STUDY, ["--images", "8"])],
    ids=["gradient_variance", "bn_study"],
)
def test_a_study_says_of_which_weights_it_is_and_mlflow_has_it(
    program: object, file: str, arguments: list[str], tmp_path: Path, shapes_root: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    uri = new_database(tmp_path / "store")
    folder = interrupted_run(tmp_path, shapes_root, uri=uri, step=6)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["study", ".", *arguments])
    assert program.main() == 0  # type: ignore[attr-defined]
    study = json.loads((folder / file).read_text())
    assert (study["step"], study["epoch"]) == (6, 6 / STEPS_PER_EPOCH)
    assert f"epoch 1.5 of {EPOCHS}" in " ".join(capsys.readouterr().out.split())
    client = MlflowClient(uri)
    (run,) = client.search_runs(["1", "2"])
    assert run.data.tags["run_id"] == folder.name
    assert json.loads(Path(client.download_artifacts(run.info.run_id, file)).read_text()) == study


def test_a_server_that_is_down_costs_a_study_a_warning(
    tmp_path: Path, shapes_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = interrupted_run(tmp_path, shapes_root, uri="http://127.0.0.1:9", step=EPOCHS * STEPS_PER_EPOCH)
    monkeypatch.setattr("sys.argv", ["study", str(folder), "--batches", "6"])
    with caplog.at_level(logging.WARNING):
        assert gradient_variance.main() == 0
    assert "megdet sync" in caplog.text and (folder / GRADIENT_VARIANCE).exists()
