from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis.comparable import comparable_groups
from megdet.analysis.frames import load_runs
from megdet.analysis.paper import ratio_table
from megdet.analysis.table import Table
from megdet.analysis.tables.table1 import MEASURES, make
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import mirror
from tests.analysis.ratios import with_ratios
from tests.analysis.test_tables import LONG
from tests.analysis.under_way import being_run
from tests.runs.fabricate import fabricate_run, plan_of
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def table_of(source: str) -> Table:
    (group,) = comparable_groups(load_runs(source, epochs=MEASURES))
    table = make(group)
    assert table is not None
    return table


def cells_of(table: Table) -> dict[tuple[str, str], list[str]]:
    """Each row's texts, by epoch and batch."""
    return {(row[0], row[1]): row for row in table.texts().to_numpy().tolist()}


def notes_of(table: Table, batch: str) -> dict[str, tuple[str, ...]]:
    """By epoch, what is noted on the rows of a batch."""
    names = zip(table.frame["Epoch"], table.frame["Batch Size"], table.notes, strict=True)
    return {epoch: notes for epoch, name, notes in names if name == batch}


def test_the_papers_ratios_are_those_printed_in_the_paper() -> None:
    table = make(None)
    assert table is not None and table.columns[-1].heading == "Ratio (%) (paper)"
    assert [(row[0], row[1], row[-1]) for row in table.texts().to_numpy().tolist()] == [
        ("1", "16", "5.58"), ("1", "256", "9.82"), ("6", "16", "11.77"), ("6", "256", "16.11"), ("12", "16", "16.59"),
        ("12", "256", "16.91"),
    ]  # fmt: skip
    assert list(ratio_table().measures) == ["RPN", "RoI"]


def test_what_table_1_asks_for_can_be_planned() -> None:
    for row in ratio_table().rows:
        batch, bn_size, schedule, scale = row.key
        plan = plan_of({"batch": batch, "bn_size": bn_size, "lr.scale": scale}, "c")
        assert plan.config.schedule.name == schedule and plan.layout.gpus in (8, 128)


def test_a_ratio_stands_beside_the_papers_at_its_epochs_and_the_last_of_11_at_its_12th(tmp_path: Path) -> None:
    with_ratios(fabricate_run(tmp_path, {"batch": 16}), rpn=1, roi=2)
    large = with_ratios(fabricate_run(tmp_path, {"batch": 256, "seed": 0}, status="running", epochs=2), rpn=3, roi=4)
    with being_run(large):
        table = table_of(str(tmp_path))
    cells = cells_of(table)
    assert cells["1", "16"] == ["1", "16", "16", "1.00", "-4.58", "2.00", "-3.58", "5.58"]
    assert cells["6", "16"][3] == "6.00" and not notes_of(table, "16")["6"]
    assert cells["12 (ours: 11)", "16"][3] == "11.00"
    assert cells["1", "256"][3] == "3.00" and cells["6", "256"][3] == "running"
    assert "does not say" in table.about and "12 (ours: 11)" in table.about


def test_seeds_are_averaged_and_other_batches_follow_the_papers_in_each_epoch(tmp_path: Path) -> None:
    for seed, rpn in enumerate((1.0, 2.0)):
        with_ratios(fabricate_run(tmp_path, {"batch": 16, "seed": seed}), rpn=rpn, roi=1)
    with_ratios(fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}), rpn=1, roi=1)
    with_ratios(fabricate_run(tmp_path, {"batch": 16, **LONG}), rpn=1, roi=1)
    table = table_of(str(tmp_path))
    assert list(cells_of(table)) == [
        ("1", "16"), ("1", "256"), ("1", "32 †"), ("1", "16 (long) †"),
        ("6", "16"), ("6", "256"), ("6", "32 †"), ("6", "16 (long) †"),
        ("12 (ours: 11)", "16"), ("12", "256"), ("12 (ours: 11)", "32 †"), ("12", "16 (long) †"),
        ("18", "16 (long) †"),
    ]  # fmt: skip
    assert cells_of(table)["1", "16"][3] == "1.50 ± 0.71 (2)" and cells_of(table)["12", "16 (long) †"][3] == "12.00"


def test_mlflow_gives_the_same_ratios_as_the_folder(tmp_path: Path) -> None:
    folder = with_ratios(fabricate_run(tmp_path / "runs", {"batch": 16}), rpn=1, roi=2)
    uri = new_database(tmp_path)
    assert mirror(RunFolder(folder), uri, "megdet")
    ours, theirs = table_of(str(tmp_path / "runs")), table_of(uri)
    assert len(ours.frame) == 6 and cells_of(ours) == cells_of(theirs)


def test_runs_without_a_ratio_give_no_table_and_no_rows(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=0)
    fabricate_run(tmp_path, {"batch": 32})
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    assert make(group) is None
    with_ratios(fabricate_run(tmp_path, {"batch": 256}), rpn=1, roi=1)
    assert set(table_of(str(tmp_path)).frame["Batch Size"]) == {"16", "256"}


def test_once_the_papers_rows_have_been_run_they_stand_alone(tmp_path: Path) -> None:
    for batch in (16, 32, 256):
        with_ratios(fabricate_run(tmp_path, {"batch": batch}), rpn=1, roi=1)
    assert set(table_of(str(tmp_path)).frame["Batch Size"]) == {"16", "256"}


def test_a_run_under_way_that_has_given_its_value_is_no_further_seed(tmp_path: Path) -> None:
    with_ratios(fabricate_run(tmp_path, {"batch": 16}), rpn=1, roi=1)
    second = with_ratios(fabricate_run(tmp_path, {"batch": 16, "seed": 1}, status="running", epochs=2), rpn=3, roi=1)
    with being_run(second):
        notes = notes_of(table_of(str(tmp_path)), "16")
    assert notes == {"1": (), "6": ("further seeds running: 1",), "12 (ours: 11)": ("further seeds running: 1",)}


def test_epochs_that_a_stopped_run_has_not_reached_are_empty_and_a_note_says_why(tmp_path: Path) -> None:
    with_ratios(fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=2), rpn=1, roi=1)
    table = table_of(str(tmp_path))
    cells, notes = cells_of(table), notes_of(table, "16")
    assert cells["1", "16"][3] == "1.00" and notes["1"] == ()
    assert cells["6", "16"][3] == "" and notes["6"] == ("interrupted (its launcher is gone)",)
