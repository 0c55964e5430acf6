"""Living with many runs: what they take, and how they go away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet import cli
from megdet.cli.disk import size_text
from megdet.runs.folder import RunFolder
from megdet.runs.times import duration_text
from megdet.tracking.mirror import mirror
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(tmp_path / "runs", {"batch": 32}, status="failed", epochs=1, reason="a bug")
    return tmp_path / "runs"


def names(runs: Path) -> list[str]:
    return sorted(path.parent.name.split("-normal")[0] for path in runs.glob("*/plan.json"))


def test_failed_runs_go_and_the_others_stay(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rm", "--failed"]) == 2
    said = capsys.readouterr()
    assert "runs/b32-bn16" in said.out and "--yes does it without asking" in said.err
    assert names(runs) == ["b16-bn16", "b32-bn16"]
    assert cli.main(["rm", "--failed", "--yes"]) == 0
    assert names(runs) == ["b16-bn16"]
    assert cli.main(["rm", "--failed", "--yes"]) == 0 and "nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "left"), [("y", ["b16-bn16"]), ("", ["b16-bn16", "b32-bn16"])])
def test_who_is_asked_decides(answer: str, left: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert cli.main(["rm", "b32-*"]) == (0 if answer else 2)
    assert asked[0].startswith("Remove this run (") and names(runs) == left


def test_old_folders_of_runs_begun_anew_go(runs: Path) -> None:
    [failed] = runs.glob("b32-*")
    (runs / ".replaced").mkdir()
    shutil.move(failed, runs / ".replaced" / f"{failed.name}-20261127-080000-1")
    assert cli.main(["rm", "--replaced", "--yes"]) == 0
    assert not list((runs / ".replaced").iterdir()) and names(runs) == ["b16-bn16"]


def test_nothing_is_removed_that_was_not_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rm", "--yes"]) == 2
    assert "name the runs to remove, or --failed" in capsys.readouterr().err
    assert names(runs) == ["b16-bn16", "b32-bn16"]


def test_mlflow_forgets_what_is_removed_and_a_run_that_it_keeps_stays(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = new_database(tmp_path / "store")
    for folder in runs.iterdir():
        assert mirror(RunFolder(folder), uri, "paper")
    client = MlflowClient(uri)
    assert len(client.search_runs(["1", "2"])) == 2
    assert cli.main(["rm", "b32-*", "--yes"]) == 0
    [kept] = client.search_runs(["1", "2"])
    assert kept.data.tags["run_id"].startswith("b16-")
    [note] = runs.glob("b16-*/mlflow.json")
    note.write_text(note.read_text().replace(uri, "http://127.0.0.1:9"))
    assert cli.main(["rm", "b16-*", "--yes"]) == 1
    assert "left, because MLflow has a run of it" in capsys.readouterr().err and names(runs) == ["b16-bn16"]


def test_a_copy_that_is_removed_leaves_the_run_of_the_original(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_database(tmp_path)
    [folder] = runs.glob("b16-*")
    assert mirror(RunFolder(folder), uri, "paper")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(runs, elsewhere / "runs")
    shutil.copytree(folder, runs / "backup")
    assert cli.main(["rm", "backup", "--yes"]) == 0
    monkeypatch.chdir(elsewhere)
    assert cli.main(["rm", folder.name, "--yes"]) == 0, "no database is beside it"
    assert active_runs(uri) == 1
    shutil.copytree(folder, elsewhere / "runs" / folder.name)
    [database] = tmp_path.glob("*.db")
    shutil.copy(database, elsewhere)
    assert cli.main(["rm", folder.name, "--yes"]) == 0
    assert (active_runs(uri), active_runs(f"sqlite:///{elsewhere / database.name}")) == (1, 0)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["rm", folder.name, "--yes"]) == 0 and active_runs(uri) == 0


def active_runs(uri: str) -> int:
    return len(MlflowClient(uri).search_runs(["1", "2"]))


def test_a_run_that_cannot_be_removed_here_stays_in_mlflow_too(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = new_database(tmp_path / "store")
    [folder] = runs.glob("b16-*")
    (folder / "pictures").mkdir()
    assert mirror(RunFolder(folder), uri, "paper")
    # As the system says where one has no right to, which root always has.
    may: Callable[[Path, int], bool] = os.access
    monkeypatch.setattr("os.access", lambda path, how: Path(path).name != "pictures" and may(path, how))
    assert cli.main(["rm", "b16-*", "--yes"]) == 1
    assert "no right to change" in capsys.readouterr().err and names(runs) == ["b16-bn16", "b32-bn16"]
    assert len(MlflowClient(uri).search_runs(["1", "2"])) == 1


def test_du_lists_the_largest_first_and_what_lies_beside_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [small], [large] = runs.glob("b16-*"), runs.glob("b32-*")
    (large / "checkpoint.pt").write_bytes(bytes(2_500_000))
    (small / "pictures").mkdir()
    (small / "pictures" / "a.png").write_bytes(bytes(40_000))
    (runs / ".sweeps" / "s").mkdir(parents=True)
    (runs / ".sweeps" / "s" / "table.html").write_bytes(bytes(7_000))
    assert cli.main(["du"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    [first, second] = [line for line in lines if line[0].startswith("b")]
    assert first[0] == large.name and first[1:5] == ["2.5", "MB", "0", "B"]
    assert second[0] == small.name and second[3:5] == ["40", "kB"]
    assert ["sweeps", "7.0", "kB"] in lines
    assert cli.main(["du", small.name]) == 0 and "sweeps" not in capsys.readouterr().out


def test_amounts_have_the_unit_that_fits() -> None:
    assert [duration_text(s) for s in (0, 42.4, 99, 150, 5400, 6000, 12345, 360000)] == [
        "0 s", "42 s", "99 s", "2 min", "90 min", "1.67 h", "3.43 h", "100 h",
    ]  # fmt: skip
    assert [size_text(n) for n in (0, 999, 1000, 12_345, 5_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12 kB",
        "5.0 GB",
    ]


def test_status_fits_into_80_characters_with_whole_names_and_says_model_and_data_where_they_differ(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["status"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:-1])) <= 80 and "model" not in said
    assert all(path.name in said for path in runs.iterdir())
    assert f"{next(runs.glob('b32-*')).name}: a bug" in said
    fabricate_run(runs, {"batch": 16, "model.name": "another"})
    assert cli.main(["status"]) == 0
    said = capsys.readouterr().out
    assert "another" in said and "r50_fpn" in said and "coco2017" not in said


def test_why_says_a_reason_once_and_how_failed_runs_start_again(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batch in (64, 128):
        fabricate_run(runs, {"batch": batch}, status="failed", epochs=1, reason="CUDA out of memory")
    assert cli.main(["why"]) == 0
    said = capsys.readouterr().out
    memory = said.partition("CUDA out of memory: 2 runs")[2].partition("What to do")
    assert memory[0].count("CUDA out of memory") == 1 and "b64-" in memory[0] and "b128-" in memory[0]
    assert said.count("sweep.on_existing=retry_failed") == 2, "of the two groups, once each"
