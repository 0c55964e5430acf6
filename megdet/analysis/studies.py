"""Tables of what the studies of trained runs found: other BN statistics, the gradient's variance."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Generic, TypeVar

from megdet.analysis.by_row import place_of
from megdet.analysis.comparable import Group
from megdet.analysis.paper import RowKey, key_of, label_of
from megdet.analysis.runs import RunRecord
from megdet.analysis.tables import Cell, Row, Table, difference_text, mean_text
from megdet.runs.folder import BN_STUDY, GRADIENT_VARIANCE

COCO = ("mmAP", "AP50", "AP75", "mmAR")
RUNNING = "running average"
PROGRAMS = {BN_STUDY: "megdet.studies.bn_study", GRADIENT_VARIANCE: "megdet.studies.gradient_variance"}
"""What makes each file."""
WEIGHTS = ("step", "epoch")
"""What a file says of the weights that were studied; one of before this was recorded says nothing."""
BN_LEGEND = (
    "In percent; over several seeds, mean ± standard deviation (seeds). running average: as training left it, and as "
    "every other table has it. precise: the mean over the BN batches of so many training images, last weights. "
    "groups of k: each k evaluation images are normalised by their own statistics. difference: mmAP less that with "
    "the running average of the same runs."
)
VARIANCE_LEGEND = (
    "k x Var(mean of k gradients) / Var(gradient), the gradients being those of the run's own BN batches (accumulation "
    "passes) at its last weights: 1 where the variance falls as 1/k (Eq. 2-4). Of one run, ± is its standard error; "
    "over several seeds, mean ± standard deviation (seeds)."
)

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
class _Study(Generic[T]):
    run: RunRecord
    early: float | None
    """Epochs trained where that was not all of the training: no result of the run."""
    found: T


def sound_gradient_variances(runs: Sequence[RunRecord]) -> list[tuple[RunRecord, Ratios]]:
    """What `megdet.studies.gradient_variance` found in those of the runs whose last weights it has studied.

    `all` has an entry in each. A file that cannot be read is left out, with a line on stderr.
    """
    return [(study.run, study.found) for study in _studies(runs, GRADIENT_VARIANCE, _ratios) if study.early is None]


def bn_table(group: Group) -> Table | None:
    """The COCO numbers of a group's runs under each of the BN statistics that were tried; None without a study."""
    rows = []
    by_row = _by_row(_studies(group.runs, BN_STUDY, _statistics))
    for (key, early), studies in by_row.items():
        names = dict.fromkeys(name for study in studies for name in study.found)
        rows += [_bn_row(key, early, name, [study for study in studies if name in study.found]) for name in names]
    columns = ("Batch size", "BN size", "statistics", *COCO, "difference")
    title = "BN statistics: the same weights under other statistics"
    about = _about(by_row, BN_STUDY)
    return Table(title, group.title, columns, tuple(rows), about, BN_LEGEND) if rows else None


def variance_table(group: Group) -> Table | None:
    """How the gradient's variance falls with k, by module, in a group's runs; None without a study."""
    by_row = _by_row(_studies(group.runs, GRADIENT_VARIANCE, _ratios))
    found = [by_k for studies in by_row.values() for study in studies for by_k in study.found.values()]
    sizes = sorted({k for by_k in found for k in by_k})
    rows = []
    for (key, early), studies in by_row.items():
        modules = dict.fromkeys(module for study in studies for module in study.found)
        rows += [_variance_row(key, early, module, sizes, studies) for module in modules]
    columns = ("Batch size", "BN size", "module", *(f"k = {k}" for k in sizes))
    title = "Gradient variance: does it fall as 1/k?"
    about = _about(by_row, GRADIENT_VARIANCE)
    return Table(title, group.title, columns, tuple(rows), about, VARIANCE_LEGEND) if rows else None


def _studies(runs: Sequence[RunRecord], name: str, parse: Callable[[Any], T]) -> list[_Study[T]]:
    """The studies in the runs' files of that name. `parse` raises for a content that is not of its form."""
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        files = list(pool.map(lambda run: run.files(name), runs))
    found = []
    for run, paths in zip(runs, files, strict=True):
        for path in paths:
            try:
                content = json.loads(path.read_text())
                found.append(_Study(run, _early(run, content), parse(content)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # an older version's may be anything
                why = f"damaged or of an older form ({type(error).__name__}: {error})"
                again = f"`python -m {PROGRAMS[name]} {run.folder or 'RUN_FOLDER'}` makes it anew"
                print(f"left out: {name} of {run.run_id} is {why}; {again}", file=sys.stderr)
    return found


def _early(run: RunRecord, content: Mapping[str, Any]) -> float | None:
    epoch = content.get("epoch")
    return None if epoch is None or epoch >= run.schedule_epochs else float(epoch)


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


def _by_row(studies: Sequence[_Study[T]]) -> dict[tuple[RowKey, float | None], list[_Study[T]]]:
    """The studies by row, in the order of the rows; those of weights before the end of training have their own."""
    by_row: dict[tuple[RowKey, float | None], list[_Study[T]]] = defaultdict(list)
    for study in studies:
        by_row[key_of(study.run), study.early].append(study)
    return {row: by_row[row] for row in sorted(by_row, key=lambda row: (place_of(row[0]), row[1] or 0.0))}


def _about(by_row: Mapping[tuple[RowKey, float | None], Sequence[_Study[T]]], name: str) -> str:
    """Which rows are not of a run's last weights."""
    lines = [
        f"{_label(key, early)}, BN size {key[1]}: of epoch {_epoch(early)} of {studies[0].run.schedule_epochs}, before "
        f"the end of training; `python -m {PROGRAMS[name]} RUN_FOLDER` studies the last weights there are."
        for (key, early), studies in by_row.items()
        if early is not None
    ]
    return " ".join(lines)


def _label(key: RowKey, early: float | None) -> str:
    return label_of(key) + ("" if early is None else f", epoch {_epoch(early)}")


def _epoch(early: float) -> str:
    return f"{math.floor(100 * early) / 100:g}"  # rounded down: it is not the last


def _bn_row(key: RowKey, early: float | None, name: str, studies: Sequence[_Study[Statistics]]) -> Row:
    def cell(metric: str) -> Cell:
        values = [value for study in studies if (value := study.found[name].get(metric)) is not None]
        return mean_text(values) if values else None

    mmAPs = [(study.found[name]["mmAP"], study.found.get(RUNNING, {}).get("mmAP")) for study in studies]
    changes = [one - usual for one, usual in mmAPs if one is not None and usual is not None]
    scored = [one for one, _ in mmAPs if one is not None]
    change = difference_text(fmean(changes)) if changes and name != RUNNING else None
    cells = (_label(key, early), str(key[1]), name, *(cell(metric) for metric in COCO), change)
    runs = tuple(study.run for study in studies)
    return Row(cells, key=(*key, early, name), runs=runs, mmAP=fmean(scored) if scored else None)


def _variance_row(
    key: RowKey, early: float | None, module: str, sizes: Sequence[int], studies: Sequence[_Study[Ratios]]
) -> Row:
    def cell(k: int) -> Cell:
        given = [by_k[k] for study in studies if k in (by_k := study.found.get(module, {}))]
        if len(given) == 1:
            return f"{given[0].ratio:.2f} ± {given[0].error:.2f}"
        return mean_text([one.ratio for one in given], digits=2) if given else None

    cells = (_label(key, early), str(key[1]), module, *(cell(k) for k in sizes))
    return Row(cells, key=(*key, early, module), runs=tuple(study.run for study in studies))
