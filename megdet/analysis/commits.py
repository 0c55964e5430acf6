"""Which code trained the runs of a table: said where it was several commits, or uncommitted changes."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd

from megdet.analysis.table import Table
from megdet.runs.provenance import ARROW
from megdet.settings.counted import counted


def with_commits(table: Table) -> Table:
    """`table` with the commits of its runs where they differ: in the heading and in the rows' notes."""
    if table.runs.empty:
        return table
    runs = table.runs.drop_duplicates(["run_id", "commits"])
    several = of_several_commits(runs)
    heading = [table.shown]
    if several:
        heading.append(f"not of one code: {commits_text(runs)}")
    resumed = (runs["commits"].str.len() > 1).sum()
    if resumed:
        heading.append(f"{resumed} of {len(runs)} trained by several commits")
    if runs["dirty"].any():
        heading.append(f"{runs['dirty'].sum()} of {len(runs)} with uncommitted changes")
    of_rows = {place: _notes(part, several=several) for place, part in table.runs.groupby("row")}
    notes = tuple((*notes, *of_rows.get(place, ())) for place, notes in enumerate(table.notes))
    return replace(table, shown="; ".join(heading), notes=notes)


def of_several_commits(runs: pd.DataFrame) -> bool:
    """Whether more than one commit trained the runs, or one of the runs."""
    return len({commit for commits in runs["commits"] for commit in commits}) > 1


def commits_text(runs: pd.DataFrame) -> str:
    """`commit c0ffee1234`, or several with the number of their runs; `a → b`: runs resumed under another."""
    counts = short_commits(runs).value_counts().sort_index()
    if len(counts) == 1:
        return f"commit {counts.index[0]}"
    return "commits " + ", ".join(f"{commit} ({counted(count, 'run')})" for commit, count in counts.items())


def _notes(runs: pd.DataFrame, *, several: bool) -> list[str]:
    notes = []
    commits = sorted(set(short_commits(runs)))
    if len(commits) > 1:
        notes.append("runs of different commits: " + ", ".join(commits))
    elif several:
        notes.append(f"commit {commits[0]}")
    if (runs["commits"].str.len() > 1).any():
        notes.append("resumed under another commit")
    if runs["dirty"].any():
        notes.append("run with uncommitted changes")
    return notes


def short_commits(runs: pd.DataFrame) -> pd.Series:
    """The commits of each run, by ten digits, one after the other; what is no commit (a release's version) is whole."""
    return runs["commits"].map(lambda commits: ARROW.join(map(_short, commits)))


def _short(commit: str) -> str:
    return commit[:10] if re.fullmatch("[0-9a-f]{40}", commit) else commit
