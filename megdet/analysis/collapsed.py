"""Runs that ended, and learned next to nothing."""

from __future__ import annotations

import pandas as pd

COLLAPSED = 0.1
"""Of the best run's mmAP: a detector that ends below has learned next to nothing, though its loss stayed finite."""


def have_collapsed(runs: pd.DataFrame) -> pd.Series:
    """Of each of these comparable runs, whether it finished below COLLAPSED of the best one's mmAP."""
    finished = runs["mmAP"].where(runs["status"] == "finished")
    return finished < COLLAPSED * runs["mmAP"].max()
