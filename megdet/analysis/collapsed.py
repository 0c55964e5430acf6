"""Runs that ended, and learned next to nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from megdet.analysis.rows import RowKey

COLLAPSED = 0.1
"""Of the best run's mmAP: a detector that ends below has learned next to nothing, though its loss stayed finite."""


def have_collapsed(runs: pd.DataFrame) -> pd.Series:
    """Of each of these comparable runs, whether it finished below COLLAPSED of the best one's mmAP."""
    finished = runs["mmAP"].where(runs["status"] == "finished")
    return finished < COLLAPSED * runs["mmAP"].max()


def have_failed(runs: pd.DataFrame) -> pd.Series:
    """Of each of these comparable runs, whether it diverged or collapsed."""
    return (runs["status"] == "diverged") | have_collapsed(runs)


def rows_with_collapsed(rows: Mapping[RowKey, pd.DataFrame], among: pd.DataFrame) -> set[RowKey]:
    """Those of the rows of which a run has collapsed, by the best run `among` all that are comparable."""
    collapsed = have_collapsed(among)
    return {key for key, runs in rows.items() if collapsed[runs.index].any()}
