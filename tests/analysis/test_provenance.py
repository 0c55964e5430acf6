"""Tables and provenance of runs that were resumed under other code or on other data."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis.commits import with_commits
from megdet.analysis.provenance import provenance_of
from megdet.analysis.table import Table
from megdet.analysis.tables import table2
from megdet.runs.journal import Journal
from tests.analysis.paper_runs import group_of
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Table 2 of two runs, of which one was resumed under another commit, with other annotations."""
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, commit="a" * 40)
    resumed = fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, commit="b" * 40)
    journal = resumed / "metrics.jsonl"
    others = journal.read_text().splitlines(keepends=True)[1:]
    journal.unlink()
    with Journal(owned(resumed)) as first:
        values = {"dirty": False, "weights_sha256": "0676ba61b678"}
        first.event("started", step=0, commit="a" * 40, data_sha256="1" * 12, **values)
    with journal.open("a") as file:
        file.writelines(others[:-1])
    with Journal(owned(resumed)) as last:
        last.event("resumed", step=81312, commit="b" * 40, dirty=False, data_sha256="2" * 12)
        last.event("finished", step=81312)
    made = table2.make(group_of(tmp_path))
    assert made is not None
    return with_commits(made)


def test_a_run_of_several_commits_is_said_to_be_in_heading_and_note(table: Table) -> None:
    assert "not of one code: commits aaaaaaaaaa (1 run), aaaaaaaaaa → bbbbbbbbbb (1 run)" in table.shown
    assert "1 of 2 trained by several commits" in table.shown
    notes = {run["batch"]: table.notes[run["row"]] for _, run in table.runs.iterrows()}
    assert notes[16] == ("commit aaaaaaaaaa → bbbbbbbbbb", "resumed under another commit")
    assert notes[32] == ("commit aaaaaaaaaa",)


def test_provenance_shows_every_commit_and_the_content_of_data_and_weights(table: Table) -> None:
    provenance = provenance_of(table)
    assert provenance is not None
    rows = {int(row["run"].split("-")[0][1:]): row for _, row in provenance.texts().iterrows()}
    assert rows[16]["commit"] == f"{'a' * 10} → {'b' * 10}"
    assert (rows[16]["data"], rows[16]["weights"]) == (f"{'1' * 12} → {'2' * 12}", "0676ba61b678")
    assert (rows[32]["commit"], rows[32]["data"], rows[32]["weights"]) == ("a" * 10, "", "")
