"""A runs folder that was moved or copied with its MLflow database: nothing is written into the old place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet import cli
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.tracking.client import prepare
from megdet.tracking.mirror import mirror
from megdet.tracking.moved import uri_here
from megdet.tracking.uri import default_uri
from tests.runs.fabricate import fabricate_run

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a tracked run was trained."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    old = tmp_path / "old"
    uri = default_uri(old)
    old.mkdir()
    folder = fabricate_run(old / "runs", {"tracking.uri": uri, "tracking.experiment": "mine"})
    assert prepare(uri, "mine") and mirror(RunFolder(folder), uri, "mine")
    return old


def runs_in(place: Path) -> int:
    found = MlflowClient(default_uri(place))
    return len(found.search_runs([found.get_experiment_by_name("mine").experiment_id]))


def test_a_copied_runs_folder_is_pushed_to_a_database_beside_it(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    shutil.copytree(old / "runs", new / "runs")
    shutil.rmtree(old)
    monkeypatch.chdir(new)
    assert cli.main(["sync"]) == 0
    assert not old.exists(), "a deleted database is not made again"
    assert runs_in(new) == 1
    assert cli.main(["sync"]) == 0 and runs_in(new) == 1, "twice adds nothing"
    assert (new / "mlartifacts").is_dir()


def test_a_database_whose_files_lie_elsewhere_is_refused_with_a_way_out(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Path(shutil.move(old, tmp_path / "new"))
    with pytest.raises(UserError, match=r"was moved or copied: .* `megdet sync` makes a new one"):
        prepare(default_uri(new), "mine")
    third = tmp_path / "third"
    third.mkdir()
    shutil.move(new / "runs", third / "runs")  # without the database: what the message says
    monkeypatch.chdir(third)
    assert cli.main(["sync"]) == 0 and runs_in(third) == 1 and not old.exists()


def test_only_a_database_that_lay_above_the_run_moves_with_it(old: Path, tmp_path: Path) -> None:
    [run] = (old / "runs").iterdir()
    assert uri_here(run, default_uri(old)) == default_uri(old)
    moved = Path(shutil.move(run, tmp_path / run.name))
    assert uri_here(moved, default_uri(old)) == default_uri(tmp_path.parent)
    for elsewhere in ("http://127.0.0.1:5000", "sqlite:////shared/mlflow.db"):
        assert uri_here(moved, elsewhere) == elsewhere


def test_writers_and_readers_go_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    assert default_uri(tmp_path / "here") == f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(UserError, match="neither a tracking server nor a database"):
        default_uri(tmp_path)
