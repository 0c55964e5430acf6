"""The page of the evidence: its tables are those of the records beside it."""

from __future__ import annotations

import pytest

from megdet.analysis import make_tables
from tests.docs.pages import ROOT

PAGE, RECORDS = ROOT / "docs" / "evidence.md", ROOT / "docs" / "evidence"


@pytest.mark.parametrize("table", ["2", "claims"])
def test_the_tables_on_the_page_are_those_of_the_records(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_tables.main(["--from", str(RECORDS), "--table", table]) == 0
    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if line.startswith(("|", "- "))]
    assert len(rows) > 5 and not said.err
    missing = [row for row in rows if row not in PAGE.read_text()]
    assert not missing
