"""Of which code the runs of a table are: said plainly where it is not one code, as committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import Row, Table
from megdet.runs.provenance import ARROW


def with_commits(table: Table) -> Table:
    """`table` with what sets its runs' code apart: in its heading, and in the notes of the rows."""
    runs = list({(run.run_id, run.commits): run for row in table.rows for run in row.runs}.values())
    several = of_several_commits(runs)
    heading = [table.runs]
    if several:
        heading.append(f"not of one code: {commits_text(runs)}")
    resumed = sum(len(run.commits) > 1 for run in runs)
    if resumed:
        heading.append(f"{resumed} of {len(runs)} trained by several commits")
    changed = sum(run.dirty for run in runs)
    if changed:
        heading.append(f"{changed} of {len(runs)} with uncommitted changes")
    rows = tuple(replace(row, notes=(*row.notes, *_notes(row, several=several))) for row in table.rows)
    return replace(table, runs="; ".join(heading), rows=rows)


def of_several_commits(runs: Sequence[RunRecord]) -> bool:
    """Whether more than one commit trained the runs, or a run among them."""
    return len({commit for run in runs for commit in run.commits}) > 1


def commits_text(runs: Sequence[RunRecord]) -> str:
    """`commit c0ffee1234`, or several with the number of their runs; `a → b`: runs resumed under another."""
    commits = [_commits_of(run) for run in runs]
    counts = {commit: commits.count(commit) for commit in sorted(set(commits))}
    if len(counts) == 1:
        return f"commit {commits[0]}"
    return "commits " + ", ".join(
        f"{commit} ({count} {'run' if count == 1 else 'runs'})" for commit, count in counts.items()
    )


def _notes(row: Row, *, several: bool) -> list[str]:
    notes = []
    commits = sorted({_commits_of(run) for run in row.runs})
    if len(commits) > 1:
        notes.append("runs of different commits: " + ", ".join(commits))
    elif commits and several:
        notes.append(f"commit {commits[0]}")
    if any(len(run.commits) > 1 for run in row.runs):
        notes.append("resumed under another commit")
    if any(run.dirty for run in row.runs):
        notes.append("run with uncommitted changes")
    return notes


def _commits_of(run: RunRecord) -> str:
    return ARROW.join(commit[:10] for commit in run.commits)
