"""Tables know what their columns are: which cells are compared, what is best, how a note names a row."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from megdet.analysis.cells import Cell, Seeds, as_is, decimals, hours, seeds_of, signed, three_digits
from megdet.analysis.table import Column, Kind, Row, Table, notes_of, table_of

NAME = Column("Batch size", Kind.NAMING)


def table_with(column: Column, cells: Sequence[Cell]) -> Table:
    return table_of("T", "some", [NAME, column], [Row((n,), (str(n), cell)) for n, cell in enumerate(cells)])


def best_of(column: Column, cells: Sequence[Cell]) -> list[bool]:
    return list(table_with(column, cells).best()[column.heading])


@pytest.mark.parametrize(
    ("column", "heading"),
    [
        (Column("mmAP", Kind.MEASURED), "mmAP"),
        (Column("Time", Kind.MEASURED, unit="h"), "Time (h)"),
        (Column("Time", Kind.PAPER, unit="h"), "Time (h) (paper)"),
        (Column("Time", Kind.MEASURED, unit="h", of="low"), "Time (h) (low)"),
    ],
)
def test_a_heading_says_unit_and_whose_number_it_is(column: Column, heading: str) -> None:
    assert column.heading == heading and list(table_with(column, ["x"]).frame) == ["Batch size", heading]


@pytest.mark.parametrize(
    ("better", "cells", "best"),
    [
        ("up", [Seeds((36.0, 38.0)), Seeds((36.5,)), 36.9], [True, False, False]),  # means: 37.0, 36.5, 36.9
        ("down", [Seeds((36.0, 38.0)), Seeds((36.5,)), 36.9], [False, True, False]),
        ("up", [Seeds((37.04,)), Seeds((37.0,)), Seeds((36.9,))], [True, True, False]),  # both are 37.0 as shown
        ("up", [Seeds((), 2), Seeds((), otherwise="running"), None, "failed", Seeds((3.0,))], [False] * 5),
        ("up", [Seeds((1.0,), 1), Seeds((), 1), Seeds((2.0,))], [False, False, True]),
        (None, [Seeds((1.0,)), Seeds((2.0,))], [False, False]),
    ],
    ids=["largest_mean", "smallest_mean", "equal_as_shown", "only_one_number", "some_failed", "neither_is_better"],
)
def test_the_best_number_is_that_of_its_column_where_several_have_one(
    better: str | None, cells: Sequence[Cell], best: list[bool]
) -> None:
    column = Column("mmAP", Kind.MEASURED, decimals(1), better=better)  # type: ignore[arg-type]
    assert best_of(column, cells) == best


@pytest.mark.parametrize(
    ("statuses", "values", "text"),
    [
        (["finished"], [36.04], "36.0"),
        (["finished", "finished"], [36.0, 37.0], "36.5 ± 0.7 (2)"),  # the root of 1/2
        (["finished", "diverged"], [36.0], "36.0; 1 of 2 failed"),
        (["diverged"], [], "failed"),
        (["diverged", "diverged"], [], "failed (2 of 2)"),
        (["running", "failed"], [], "running"),
        (["finished"], [], "no mmAP"),
        (["interrupted"], [], ""),
        ([], [], ""),
    ],
)
def test_a_cell_says_what_its_runs_came_to(statuses: list[str], values: list[float], text: str) -> None:
    cell = seeds_of(pd.DataFrame({"status": statuses}), values)
    assert Column("mmAP", Kind.MEASURED, decimals(1)).text(cell) == text


def test_numbers_are_written_as_their_column_says() -> None:
    assert [signed(decimals(1))([value]) for value in (-0.04, -0.06, 0.06)] == ["0.0", "-0.1", "+0.1"]
    assert signed(three_digits)([-0.01234]) == "-0.0123" and signed(hours)([1.5]) == "+1.5"
    assert [three_digits([value]) for value in (0.01234, 1.2, 123.4, 0.0)] == ["0.0123", "1.20", "123", "0"]
    assert [as_is([value]) for value in (16, 0.5, 2.0)] == ["16", "0.5", "2"]
    for missing in (None, float("nan")):
        assert Column("x", Kind.PAPER, decimals(1)).text(missing) == ""


def test_a_note_names_its_rows_by_label_and_numbers_and_all_rows_with_runs_at_once() -> None:
    columns = [Column("Epoch", Kind.NAMING, in_notes=False), NAME, Column("BN size", Kind.NAMING)]
    runs = pd.DataFrame({"run_id": ["a"]})
    rows = [
        Row((1,), ("1", "16", 4), ("slow", "odd"), runs),
        Row((2,), ("6", "16", 4), ("slow", "odd"), runs),
        Row((3,), ("1", "32", None), ("odd",), runs),
        Row((4,), ("1", "64", 0), ("published",)),
    ]
    assert notes_of(table_of("T", "some", columns, rows)) == [
        ("16, BN size 4", "slow"), ("all runs", "odd"), ("64, BN size 0", "published")
    ]  # fmt: skip
