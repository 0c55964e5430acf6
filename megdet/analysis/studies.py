"""What the studies of trained runs left in their folders: other BN statistics, the gradient's variance."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pandas as pd

from megdet.analysis.frames import RunFrames
from megdet.analysis.rows import RowKey, key_of, label_of, place_of
from megdet.runs.journal import BN_STUDY, GRADIENT_VARIANCE

PROGRAMS = {BN_STUDY: "megdet.studies.bn_study", GRADIENT_VARIANCE: "megdet.studies.gradient_variance"}
"""What makes each file."""
WEIGHTS = ("step", "epoch")
"""What a file says of the weights that were studied; one of before this was recorded says nothing."""

Statistics = Mapping[str, Mapping[str, float | None]]
"""The COCO numbers in percent by the name of the BN statistics."""


@dataclass(frozen=True)
class Ratio:
    """k x Var(mean of k gradients) / Var(gradient)."""

    ratio: float
    error: float
    """Its standard error."""


Ratios = dict[str, dict[int, Ratio]]
"""By module (`all`: of all parameters together), then by k, from 2 on."""

T = TypeVar("T")


@dataclass(frozen=True)
class Study(Generic[T]):
    """What was found in one run."""

    run: pd.Series
    early: float | None
    """Epochs trained where that was not all of the training: no result of the run."""
    found: T


@dataclass(frozen=True)
class StudiedRow(Generic[T]):
    """The studies of the runs of a row, at the end of their training or at one epoch before."""

    key: RowKey
    early: float | None
    studies: list[Study[T]]

    @property
    def label(self) -> str:
        return label_of(self.key) + ("" if self.early is None else f", epoch {_epoch(self.early)}")

    @property
    def runs(self) -> pd.DataFrame:
        return runs_of(self.studies)


def bn_studies(frames: RunFrames) -> list[Study[Statistics]]:
    """What `megdet.studies.bn_study` found in the runs."""
    return _studies(frames, BN_STUDY, _statistics)


def gradient_variances(frames: RunFrames) -> list[Study[Ratios]]:
    """What `megdet.studies.gradient_variance` found in the runs; `all` has an entry in each.

    A file that cannot be read is left out, with a line on stderr.
    """
    return _studies(frames, GRADIENT_VARIANCE, _ratios)


def studied_rows(studies: Sequence[Study[T]]) -> list[StudiedRow[T]]:
    """The studies by row, in the order of the rows; those of weights before the end of training have their own."""
    by_row: dict[tuple[RowKey, float | None], list[Study[T]]] = defaultdict(list)
    for study in studies:
        by_row[key_of(study.run), study.early].append(study)
    rows = [StudiedRow(key, early, found) for (key, early), found in by_row.items()]
    return sorted(rows, key=lambda row: (place_of(row.key), row.early or 0.0))


def early_rows_text(rows: Sequence[StudiedRow[T]], file: str) -> str:
    """Which rows are not of a run's last weights."""
    return " ".join(
        f"{row.label}, BN size {row.key[1]}: of epoch {_epoch(row.early)} of {row.studies[0].run['schedule.epochs']}, "
        f"before the end of training; `python -m {PROGRAMS[file]} RUN_FOLDER` studies the last weights there are."
        for row in rows
        if row.early is not None
    )


def missing_text(file: str) -> Callable[[RunFrames], str]:
    """How to make a study that no run has."""

    def text(frames: RunFrames) -> str:
        way = f"`python -m {PROGRAMS[file]} RUN_FOLDER` makes it"
        if not frames.runs["folder"].any():  # from MLflow
            way += ", `megdet sync` pushes one that is in a run folder"
        return f"no run has a {file} yet; {way}"

    return text


def runs_of(studies: Sequence[Study[T]]) -> pd.DataFrame:
    """The runs that were studied."""
    return pd.DataFrame([study.run for study in studies])


def _studies(frames: RunFrames, name: str, parse: Callable[[Any], T]) -> list[Study[T]]:
    """The studies in the runs' files of that name. `parse` raises for a content that is not of its form."""
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        files = list(pool.map(lambda run: frames.files(run, name), frames.runs.index))
    found = []
    for (_, run), paths in zip(frames.runs.iterrows(), files, strict=True):
        for path in paths:
            try:
                content = json.loads(path.read_text())
                found.append(Study(run, _early(run, content), parse(content)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # an older version's may be anything
                why = f"damaged or of an older form ({type(error).__name__}: {error})"
                again = f"`python -m {PROGRAMS[name]} {run['folder'] or 'RUN_FOLDER'}` makes it anew"
                print(f"left out: {name} of {run['run_id']} is {why}; {again}", file=sys.stderr)
    return found


def _early(run: pd.Series, content: Mapping[str, Any]) -> float | None:
    epoch = content.get("epoch")
    return None if epoch is None or epoch >= run["schedule.epochs"] else float(epoch)


def _epoch(early: float | None) -> str:
    return f"{math.floor(100 * (early or 0.0)) / 100:g}"  # rounded down: it is not the last


def _statistics(content: Mapping[str, Any]) -> Statistics:
    found = {name: numbers for name, numbers in content.items() if name not in WEIGHTS}
    if not found or not all("mmAP" in numbers for numbers in found.values()):
        raise ValueError("no mmAP")
    return found


def _ratios(content: Mapping[str, Any]) -> Ratios:
    found = {
        module: {int(k): Ratio(float(one["ratio"]), float(one["error"])) for k, one in by_k.items() if int(k) > 1}
        for module, by_k in content["modules"].items()
    }
    if not found["all"]:
        raise ValueError("too few --batches for k = 2")
    return found
