"""The evidence: tables on the pages are those of the records in docs/evidence/."""

from __future__ import annotations

import re

import pytest

from tests.docs.evidence_tables import BLOCK, PAGE, made
from tests.docs.pages import ROOT

ON_PAGE = {block["command"]: block["table"] for block in BLOCK.finditer(PAGE.read_text())}
ROW = re.compile(r"^\| (\d+) \| (\w+) \| ([\d.]+ ± [\d.]+).*? \| ([\d.]+|failed) \|$", re.MULTILINE)
"""Of the table in README: batch, BN size, ours, the paper's."""


@pytest.mark.parametrize("command", ON_PAGE)
def test_a_table_on_the_page_is_that_of_the_records(command: str) -> None:
    assert ON_PAGE[command] == made(command)


def test_the_page_has_tables() -> None:
    """So that what compares them cannot come to compare nothing."""
    assert [command.split()[1] for command in ON_PAGE] == ["2", "3", "1", "claims", "variance", "bn"]


def test_the_rows_in_readme_are_those_of_the_page() -> None:
    rows = ROW.findall((ROOT / "README.md").read_text())
    assert len(rows) > 5
    tables = {
        table: next(text for command, text in ON_PAGE.items() if f"--table {table} " in command) for table in "23"
    }
    for batch, bn_size, ours, paper in rows:
        if bn_size == "frozen":
            [row] = re.findall(rf"^\| {batch} +\|.*$", tables["2"], re.MULTILINE)
        else:
            [row] = re.findall(rf"^\| {batch} +\| +{bn_size} \|.*$", tables["3"], re.MULTILINE)
        assert f"{ours} (" in row and f" {paper} |" in row, row
