from __future__ import annotations

import json
from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.runs.folder import RunFolder, run_folders
from megdet.runs.sweep_folder import SWEEP, Sweep, record_sweep, sweep_folders, sweeps_of
from megdet.sweep.record import sweep_name
from tests.runs.fabricate import fabricate_run


def record(runs: Path, name: str, run_ids: list[str], **more: str | None) -> Path:
    values: dict[str, str | None] = {"command": f"-m {name}", "uri": None, "experiment": "paper", **more}
    return record_sweep(runs, name=name, run_ids=run_ids, settings={"batch": "16, 64"}, **values)  # type: ignore[arg-type]


def test_the_same_runs_asked_for_again_are_the_same_sweep_whatever_their_order(tmp_path: Path) -> None:
    first = record(tmp_path, "table3", ["a", "b"])
    before = Sweep.read(first)
    again = record(tmp_path, "batch=16,64", ["b", "a"], uri="http://elsewhere:5000")
    assert again == first and len(sweep_folders(tmp_path)) == 1
    after = Sweep.read(again)
    assert (after.name, after.command, after.launched, after.run_ids) == (
        "table3",
        "-m table3",
        before.launched,
        ("a", "b"),
    )
    assert after.uri == "http://elsewhere:5000", "where MLflow is may change"
    assert record(tmp_path, "table3", ["a", "b", "c"]) != first


def test_what_others_read_of_a_sweep_is_its_name_id_and_runs(tmp_path: Path) -> None:
    folder = record(tmp_path, "table3", ["a", "b"])
    assert folder == tmp_path / ".sweeps" / folder.name
    written = json.loads((folder / "sweep.json").read_text())
    assert (written["sweep_id"], written["name"], written["run_ids"]) == (folder.name, "table3", ["a", "b"])


def test_a_run_knows_its_sweeps_by_who_asked_for_it_first(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, {}, epochs=1)
    folders = [record(tmp_path, name, [run.name, other]) for name, other in (("late", "x"), ("early", "y"))]
    for folder, launched in zip(folders, ("2026-11-21T10:00:00+00:00", "2026-11-20T10:00:00+00:00"), strict=True):
        values = json.loads((folder / SWEEP).read_text())
        (folder / SWEEP).write_text(json.dumps({**values, "launched": launched}))
    assert [Sweep.read(folder).name for folder in sweeps_of(RunFolder(run))] == ["early", "late"]
    assert sweeps_of(RunFolder(tmp_path / "another run")) == []
    assert [folder.path for folder in run_folders(tmp_path)] == [run], "the sweeps' folder holds no run"


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    folder = record(tmp_path, "table3", ["a", "b"])
    (folder / SWEEP).write_text("{}")
    with pytest.raises(UserError, match=r"sweep\.json is damaged .* again"):
        Sweep.read(folder)


@pytest.mark.parametrize(
    ("arguments", "swept", "rows", "name"),
    [
        (["sweep=table3", "cluster=paper"], [], "table3", "table3"),
        (["sweep=table2,table3", "seed=0,1"], ["sweep", "seed"], "table2", "table2,table3 seed=0,1"),
        (["sweep.rows=my/rows.yaml", "seed=3"], [], "my/rows.yaml", "rows"),
        (["experiment=tiny", "gpus=1", "batch=16,32"], ["batch"], None, "tiny batch=16,32"),
        (["batch=16,64", "cluster=paper", "bn_size=16,32"], ["batch", "bn_size"], None, "batch=16,64 bn_size=16,32"),
        (["model=r18_fpn,tiny"], ["model"], None, "model=r18_fpn,tiny"),
    ],
)
def test_a_sweep_is_called_by_what_tells_it_from_others(
    arguments: list[str], swept: list[str], rows: str | None, name: str
) -> None:
    assert sweep_name(arguments, swept=swept, rows=rows) == name
