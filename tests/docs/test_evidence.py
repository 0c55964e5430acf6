"""The evidence: tables on the pages are those of the records in docs/evidence/."""

from __future__ import annotations

import json
import re
from statistics import fmean

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


def test_the_runs_on_images_seen_once_are_those_of_their_records() -> None:
    rows = re.findall(r"^\| (16[^|]*) \| ([\d. |]+) \|$", PAGE.read_text().partition("comes twice")[2], re.MULTILINE)
    assert [name for name, _ in rows[:2]] == ["16-base", "16, BN 16"]
    for (_, cells), prefix in zip(rows[:2], ("b16-bn0", "b16-bn16"), strict=True):
        journals = sorted((ROOT / "docs" / "evidence-once").glob(f"{prefix}-once-s*/metrics.jsonl"))
        lines = [json.loads(line) for path in journals for line in path.read_text().splitlines()]
        recorded = [line["mmAP"] for line in lines if line["kind"] == "epoch"]
        *seeds, mean = [float(cell) for cell in cells.split("|") if cell.strip()]
        assert seeds == [round(mmAP, 1) for mmAP in recorded]
        assert mean == round(fmean(recorded), 1)


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
