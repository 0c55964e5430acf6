"""Whatever users write in names, settings and reasons stays text in every format; the best number is bold."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest

from megdet.analysis.cells import decimals
from megdet.analysis.render import csv_text, html_page, markdown
from megdet.analysis.table import Column, Kind, Row, Table, table_of

NASTY = "<img src=x onerror=alert(1)> | a\nb `c` *d* &amp; \\|"


def nasty_table() -> Table:
    columns = [Column(NASTY, Kind.NAMING), Column("mmAP", Kind.MEASURED, decimals(1), better="up")]
    rows = [Row((1,), (NASTY, 36.0), (NASTY,)), Row((2,), ("plain", 37.0))]
    return table_of(NASTY, NASTY, columns, rows, about="Read so.", legend="mmAP: COCO AP.")


def test_markdown_keeps_text_in_its_cell_and_html_out() -> None:
    text = markdown([nasty_table()])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4, "heading, rule and two rows: a line break ends no row"
    cells = [re.split(r"(?<!\\)(?:\\\\)*\|", row) for row in rows]
    assert {len(row) for row in cells} == {4}, "only the borders are unescaped bars"
    assert not re.search(r"(?<!\\)<", text), "no tag begins"
    assert not re.search(r"(?<![\\*])\*(?!\*)", text) and not re.search(r"(?<!\\)`", text)
    assert "| **37.0** |" in text and "36.0 |" in text


def test_html_shows_text_as_it_is() -> None:
    page = html_page([nasty_table()])
    assert "<img" not in page and "<strong>37.0</strong>" in page and "<strong>36.0" not in page
    # Caption, heading, cell, which runs, a note and the row that it is of.
    assert page.count(html.escape(NASTY)) == page.count("amp;") / 2 == 6


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text: str) -> None:
    table = table_of(text, text, [Column(text, Kind.NAMING)], [Row((1,), (text,), (text,))])
    (heading, row) = csv.reader(io.StringIO(csv_text([table]), newline=""))
    assert heading == ["table", "runs", f"'{text}", "note"] and row == [f"'{text}"] * 4


def test_numbers_stay_numbers_in_csv() -> None:
    columns = [Column("difference", Kind.DIFFERENCE, decimals(1))]
    table = table_of("T", "some", columns, [Row((n,), (text,)) for n, text in enumerate(("-0.3", "+0.3", -0.34, 1.0))])
    rows = list(csv.DictReader(io.StringIO(csv_text([table]))))
    assert [row["difference"] for row in rows] == ["-0.3", "+0.3", "-0.3", "1.0"]


def test_a_carriage_return_ends_no_row_of_csv() -> None:
    table = table_of("T", "some", [Column("a", Kind.NAMING)], [Row((1,), ("x\r=1",))])
    assert len(list(csv.reader(io.StringIO(csv_text([table]), newline="")))) == 2
