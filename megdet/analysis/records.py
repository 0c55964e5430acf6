"""Runs as they are read from folders or MLflow, before they become data frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

Files = Callable[[Mapping[str, Any], str], list[Path]]
"""Of a run (its facts) the files whose path in its folder fits a pattern, such as `pictures/*.png`."""


@dataclass(frozen=True)
class Record:
    """One run."""

    facts: Mapping[str, Any]
    """The columns of `RunFrames.runs` that every run has."""
    settings: Mapping[str, str]
    """All that decides the result except the seed, flat, as text (`megdet.planning.identity`)."""
    final: Mapping[str, float | None]
    """The numbers after the last epoch; empty unless the run has finished."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What it is tagged with in MLflow; a run folder has no tags."""


class Records(NamedTuple):
    """All runs of one place. The column `run` of the frames is a run's position in `runs`."""

    runs: list[Record]
    epochs: pd.DataFrame
    steps: pd.DataFrame
    files: Files
