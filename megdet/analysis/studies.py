"""Results of the studies of trained runs: other BN statistics, the gradient's variance."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from megdet.analysis.rows import RowKey, by_row, label_of
from megdet.analysis.run_frames import RunFrames
from megdet.runs.run_files import BN_STUDY, GRADIENT_VARIANCE

PROGRAMS = {BN_STUDY: "megdet.studies.bn_study", GRADIENT_VARIANCE: "megdet.studies.gradient_variance"}
"""What makes each file."""
WEIGHTS = ("step", "epoch")
"""What a file says of the weights that were studied; one of before this was recorded says nothing."""
Rows = list[dict[str, Any]]


def bn_statistics(frames: RunFrames) -> pd.DataFrame:
    """What `megdet.studies.bn_study` found: `run`, `early`, the name of the `statistics`, COCO's numbers in percent.

    `early`: epochs trained where that was not all of the training (no result of the run), else 0. A file that cannot
    be read is left out, with a line on stderr.
    """
    return _read(frames, BN_STUDY, _statistics)


def gradient_variances(frames: RunFrames) -> pd.DataFrame:
    """What `megdet.studies.gradient_variance` found: `run`, `early`, `module` (`all`: of all parameters together),
    `k` (from 2 on), `ratio` (k x Var(mean of k gradients) / Var(gradient)) and `error`, its standard error.
    """
    return _read(frames, GRADIENT_VARIANCE, _ratios)


def studied_rows(studied: pd.DataFrame, frames: RunFrames) -> Iterator[tuple[RowKey, float, pd.DataFrame]]:
    """The findings by row, with the columns of its runs; `early` ones apart."""
    if len(studied):
        for key, of_row in by_row(with_runs(studied, frames.runs)).items():
            for early, part in of_row.groupby("early"):
                yield key, early, part


def with_runs(studied: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The findings, with the columns of their runs."""
    return studied.merge(runs, left_on="run", right_index=True, suffixes=("", " of the run"))


def studied_label(key: RowKey, early: float) -> str:
    """A row's name."""
    return label_of(key) + (f", epoch {_epoch(early)}" if early else "")


def early_text(key: RowKey, early: float, part: pd.DataFrame, file: str) -> str:
    """A remark for a row that was studied before its runs ended; else empty."""
    if not early:
        return ""
    last = part["schedule.epochs"].iloc[0]
    return (
        f"{studied_label(key, early)}, BN size {key[1]}: of epoch {_epoch(early)} of {last}, before the end of "
        f"training; `python -m {PROGRAMS[file]} RUN_FOLDER` studies the last weights there are."
    )


def missing_text(file: str) -> Callable[[RunFrames], str]:
    """How to make a study that no run has."""

    def text(frames: RunFrames) -> str:
        way = f"`python -m {PROGRAMS[file]} RUN_FOLDER` makes it"
        if not frames.runs["folder"].any():  # from MLflow
            way += ", `megdet sync` pushes one that is in a run folder"
        return f"no run has a {file} yet; {way}"

    return text


def _read(frames: RunFrames, file: str, parse: Callable[[Any], Rows]) -> pd.DataFrame:
    """The runs' files of that name. `parse` raises for a content that is not of its form."""
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        paths = list(pool.map(lambda run: frames.files(run, file), frames.runs.index))
    rows: Rows = []
    for (index, run), found in zip(frames.runs.iterrows(), paths, strict=True):
        for path in found:
            try:
                content = json.loads(path.read_text())
                early = _early(content, run["schedule.epochs"])
                rows += [{"run": index, "early": early, **row} for row in parse(content)]
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # an older version's may be anything
                why = f"damaged or of an older form ({type(error).__name__}: {error})"
                again = f"`python -m {PROGRAMS[file]} {run['folder'] or 'RUN_FOLDER'}` makes it anew"
                print(f"left out: {file} of {run['run_id']} is {why}; {again}", file=sys.stderr)
    return pd.DataFrame(rows)


def _early(content: Mapping[str, Any], last: int) -> float:
    epoch = float(content.get("epoch", last))
    return epoch if epoch < last else 0.0


def _epoch(early: float) -> str:
    return f"{math.floor(100 * early) / 100:g}"  # rounded down: it is not the last


def _statistics(content: Mapping[str, Any]) -> Rows:
    found = [{"statistics": name, **numbers} for name, numbers in content.items() if name not in WEIGHTS]
    if not found or not all("mmAP" in row for row in found):
        raise ValueError("no mmAP")
    return found


def _ratios(content: Mapping[str, Any]) -> Rows:
    found = [
        {"module": module, "k": int(k), "ratio": float(one["ratio"]), "error": float(one["error"])}
        for module, by_k in content["modules"].items()
        for k, one in by_k.items()
        if int(k) > 1
    ]
    if not any(row["module"] == "all" for row in found):
        raise ValueError("too few --batches for k = 2")
    return found
