from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from megdet.cli import main as megdet
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.sweep_folder import Sweep, record_sweep
from megdet.tracking import sweep_mirror
from megdet.tracking.mirror import Mirror, mirror
from megdet.tracking.sweep_mirror import mirror_sweep
from megdet.tracking.sweep_payload import SHOWN, description, mlflow_status, runs_of, sweep_tags
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned

from .databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def sweep_of(folders: list[Path], name: str, uri: str | None) -> Path:
    return record_sweep(
        folders[0].parent,
        name=name,
        command=f"python launch.py -m {name}",
        run_ids=[folder.name for folder in folders],
        uri=uri,
        experiment="paper",
        settings={"batch": "16, 256", "model": "r50_fpn"},
    )


def in_mlflow(uri: str, where: str = "") -> dict[str, Run]:
    """The runs by the readable part of their names."""
    own = MlflowClient(uri)
    experiment = own.get_experiment_by_name("paper")
    assert experiment is not None
    found = own.search_runs([experiment.experiment_id], where)
    return {re.sub(r"-\w{8}(?= |$)| r50_fpn| coco2017", "", str(run.info.run_name)): run for run in found}


def parent_of(run: Run) -> str | None:
    return run.data.tags.get("mlflow.parentRunId")


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    small = fabricate_run(tmp_path / "runs", {"batch": 16}, mmAP=37.04, hours=38.4)
    return [small, fabricate_run(tmp_path / "runs", {"batch": 256, "bn_size": 32}, mmAP=36.92)]


def test_a_sweep_is_a_parent_with_its_runs_below_it_counts_settings_and_a_description(
    two: list[Path], uri: str
) -> None:
    sweep = sweep_of(two, "table3", uri)
    assert mirror_sweep(sweep, uri, "paper") and all(mirror(RunFolder(folder), uri, "paper") for folder in two)
    assert mirror_sweep(sweep, uri, "paper")
    found = in_mlflow(uri)
    assert set(found) == {"table3", "b16-bn16-normal-s0", "b256-bn32-normal-s0"}
    parent = found.pop("table3")
    assert [parent_of(run) for run in found.values()] == [parent.info.run_id] * 2
    assert parent_of(parent) is None and "run_id" not in parent.data.tags, "it is no run of its own"
    assert parent.info.status == "FINISHED" and parent.data.params["batch"] == "16, 256"
    assert parent.info.end_time >= parent.info.start_time, "its runs had ended before it asked for them"
    expected = {"kind": "sweep", "sweep": "table3", "sweep_id": sweep.name, "runs": "2", "finished": "2", "failed": "0"}
    assert expected.items() <= parent.data.tags.items()
    text = parent.data.tags["mlflow.note.content"]
    link = f"#/experiments/{parent.info.experiment_id}/runs/{found['b16-bn16-normal-s0'].info.run_id}"
    assert text.startswith("2 runs: 2 finished.") and "`python launch.py -m table3`" in text
    assert f"| [{two[0].name}]({link}) | finished | 11 of 11 | 37.0 | 38.4 |" in text


def test_a_run_of_two_sweeps_hangs_below_the_one_that_asked_first_and_is_found_by_both(
    tmp_path: Path, two: list[Path], uri: str
) -> None:
    first = sweep_of(two, "table2", uri)
    (first / "sweep.json").write_text((first / "sweep.json").read_text().replace('"launched": "2', '"launched": "1'))
    other = fabricate_run(tmp_path / "runs", {"batch": 64})
    second = sweep_of([two[0], other], "table3", uri)
    for sweep in (second, first):
        assert mirror_sweep(sweep, uri, "paper")
    for folder in (*two, other):
        assert mirror(RunFolder(folder), uri, "paper")
    found = in_mlflow(uri)
    assert parent_of(found["b16-bn16-normal-s0"]) == found["table2"].info.run_id
    assert parent_of(found["b64-bn16-normal-s0"]) == found["table3"].info.run_id
    assert set(in_mlflow(uri, "tags.sweep LIKE '%table3%'")) == {"table3", "b16-bn16-normal-s0", "b64-bn16-normal-s0"}
    assert set(in_mlflow(uri, "tags.sweep LIKE '%table2%' AND tags.kind = 'run'")) == {
        "b16-bn16-normal-s0", "b256-bn32-normal-s0",
    }  # fmt: skip


def test_runs_pushed_before_their_sweep_was_are_hung_below_it_by_the_next_push(two: list[Path], uri: str) -> None:
    assert all(mirror(RunFolder(folder), uri, "paper") for folder in two)
    assert mirror_sweep(sweep_of(two, "table3", uri), uri, "paper")
    assert mirror(RunFolder(two[0]), uri, "paper")
    found = in_mlflow(uri)
    assert parent_of(found["b16-bn16-normal-s0"]) == found["table3"].info.run_id
    assert parent_of(found["b256-bn32-normal-s0"]) is None


def test_a_sweep_that_has_not_changed_does_not_even_ask_mlflow(
    two: list[Path], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(two, "table3", uri)
    assert mirror_sweep(sweep, uri, "paper")

    def refuse(uri: str) -> MlflowClient:
        raise AssertionError(uri)

    monkeypatch.setattr(sweep_mirror, "client_of", refuse)
    assert mirror_sweep(sweep, uri, "paper")
    (sweep / "tables.md").write_text("new")
    assert not mirror_sweep(sweep, uri, "paper"), "a new file is something to push"


def test_the_files_of_the_sweeps_folder_are_the_parents_artifacts_in_their_latest_version(
    two: list[Path], uri: str
) -> None:
    sweep = sweep_of(two, "table3", uri)
    (sweep / "figures").mkdir()
    (sweep / "figures" / "loss.png").write_bytes(b"png")
    (sweep / "tables.md").write_text("old")
    assert mirror_sweep(sweep, uri, "paper")
    (sweep / "tables.md").write_text("the new ones")
    assert mirror_sweep(sweep, uri, "paper")
    parent, own = in_mlflow(uri)["table3"].info.run_id, MlflowClient(uri)
    assert {file.path for file in own.list_artifacts(parent)} == {"sweep.json", "tables.md", "figures"}
    assert [file.path for file in own.list_artifacts(parent, "figures")] == ["figures/loss.png"]
    assert Path(own.download_artifacts(parent, "tables.md")).read_text() == "the new ones"


def test_a_lost_note_or_a_deleted_parent_makes_no_second_one(two: list[Path], uri: str) -> None:
    sweep = sweep_of(two, "table3", uri)
    assert mirror_sweep(sweep, uri, "paper")
    before = in_mlflow(uri)["table3"].info.run_id
    (sweep / "mlflow.json").unlink()
    assert mirror_sweep(sweep, uri, "paper")
    assert in_mlflow(uri)["table3"].info.run_id == before
    MlflowClient(uri).delete_run(before)
    (sweep / "tables.md").write_text("new")
    assert mirror_sweep(sweep, uri, "paper")
    assert [run.info.run_id for run in in_mlflow(uri).values()] != [before]


def set_state(folder: Path, state: Status | None) -> None:
    if state is None:
        (folder / "state.json").unlink(missing_ok=True)
    else:
        owned(folder).write_state(RunState(Status(state), attempts=1, started="2026-11-20T10:00:00+00:00"))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([None, None], "SCHEDULED"),
        (["running", None], "RUNNING"),
        (["finished", None], "RUNNING"),
        (["finished", "diverged"], "FINISHED"),
        (["finished", "failed"], "FAILED"),
        (["failed", None], "RUNNING"),
        (["interrupted", None], "KILLED"),
        (["interrupted", "running"], "RUNNING"),
    ],
)
def test_a_sweep_stands_where_its_runs_stand_together(
    two: list[Path], states: list[Status | None], expected: str
) -> None:
    for folder, state in zip(two, states, strict=True):
        set_state(folder, state)
    sweep = sweep_of(two, "table3", None)
    runs = runs_of(sweep, Sweep.read(sweep))
    assert mlflow_status(runs) == expected
    tags = sweep_tags(sweep, Sweep.read(sweep), runs)
    assert sum(int(tags[state or "new"]) for state in set(states)) == 2


def test_a_run_that_begins_and_ends_brings_its_sweep_up_to_date(two: list[Path], uri: str) -> None:
    sweep = sweep_of(two, "table3", uri)
    set_state(two[0], "running")
    set_state(two[1], None)
    background = Mirror(RunFolder(two[0]), uri, "paper")
    set_state(two[0], "finished")
    assert background.close()
    parent = in_mlflow(uri)["table3"]
    assert (parent.info.status, parent.data.tags["finished"], parent.data.tags["new"]) == ("RUNNING", "1", "1")
    assert (sweep / "mlflow.json").exists()


def test_a_description_of_two_thousand_runs_fits_a_tag(tmp_path: Path, two: list[Path]) -> None:
    plan = Plan.from_json((two[0] / "plan.json").read_text())
    ids = [plan.run_id, *(f"b256-bn32-normal-lr0.5x-s{seed}-0123abcd" for seed in range(1999))]
    folders = [tmp_path / "runs" / run_id for run_id in ids]
    sweep = sweep_of(folders, "batch=" + ",".join(map(str, range(2000))), None)
    links = {run_id: f"#/experiments/123456789012345678/runs/{'f' * 32}" for run_id in ids}
    text = description(Sweep.read(sweep), runs_of(sweep, Sweep.read(sweep)), links=links)
    assert f"... and {2000 - SHOWN} more." in text and len(text.encode()) < 8000


def test_a_damaged_line_of_a_journal_hides_neither_the_sweep_nor_the_epoch_before_it(two: list[Path]) -> None:
    journal = two[0] / "metrics.jsonl"
    lines = journal.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if '"epoch"' in line[:20])
    lines[last] = lines[last][:40]
    journal.write_text("\n".join(lines) + "\n")
    sweep = sweep_of(two, "table3", None)
    text = description(Sweep.read(sweep), runs_of(sweep, Sweep.read(sweep)), links={})
    assert "10 of 11" in text and "11 of 11" in text


def test_a_server_that_is_down_costs_a_warning_and_sync_brings_the_sweep_later(
    two: list[Path], uri: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    down = "http://127.0.0.1:9"
    sweep = sweep_of(two, "table3", down)
    with caplog.at_level(logging.WARNING):
        assert not mirror_sweep(sweep, down, "paper")
    assert "megdet sync" in caplog.text and not (sweep / "mlflow.json").exists()
    for _ in range(2):
        assert megdet(["sync", str(two[0].parent), "--uri", uri, "--experiment", "paper"]) == 0
    found = in_mlflow(uri)
    assert len(found) == 3 and parent_of(found["b256-bn32-normal-s0"]) == found["table3"].info.run_id
    assert "viewStateShareKey=megdet" in capsys.readouterr().out
    noted = json.loads((sweep / "mlflow.json").read_text())
    assert noted["run_id"] == found["table3"].info.run_id


def test_sync_takes_a_sweep_where_it_says_though_none_of_its_runs_says_so(
    two: list[Path], uri: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = new_database(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")  # the runs' plans name no database
    sweep_of(two, "table3", uri)
    assert megdet(["sync", str(two[0].parent)]) == 0
    assert set(in_mlflow(uri)) == {"table3"} and len(MlflowClient(own).search_runs(["1", "2"])) == 2
    capsys.readouterr()
    sweep_of(two[:1], "table2", "http://127.0.0.1:9")
    assert megdet(["sync", str(two[0].parent)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == ["not pushed: the sweep table2"] and "2 runs up to date" in said.out


def test_sync_of_a_sweep_that_is_not_tracked_goes_where_its_runs_go(two: list[Path], uri: str) -> None:
    sweep_of(two, "table3", None)
    assert megdet(["sync", str(two[0].parent), "--uri", uri, "--experiment", "paper"]) == 0
    assert "table3" in in_mlflow(uri)
