"""What was found in trained runs: other BN statistics (`megdet.bn_study`), the gradient's variance, as tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean
from typing import Any

from analysis.comparable import Group
from analysis.paper import RowKey, key_of, label_of
from analysis.runs import RunRecord
from analysis.tables import Cell, Row, Table, difference_text, mean_text
from megdet.errors import UserError
from megdet.tracking.journal import BN_STUDY, GRADIENT_VARIANCE

COCO = ("mmAP", "AP50", "AP75", "mmAR")
RUNNING = "running average"
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

Found = dict[str, Any]


def bn_table(group: Group) -> Table | None:
    """The COCO numbers of a group's runs under each of the BN statistics that were tried; None without a study."""
    rows = []
    for key, found in _by_key(group, BN_STUDY).items():
        names = dict.fromkeys(name for _, study in found for name in study)
        rows += [_bn_row(key, name, [(run, study) for run, study in found if name in study]) for name in names]
    columns = ("Batch size", "BN size", "statistics", *COCO, "difference")
    title = "BN statistics: the same weights under other statistics"
    return Table(title, group.title, columns, tuple(rows), legend=BN_LEGEND) if rows else None


def variance_table(group: Group) -> Table | None:
    """How the gradient's variance falls with k, by module, in a group's runs; None without a study."""
    found = _by_key(group, GRADIENT_VARIANCE)
    sizes = sorted({k for studies in found.values() for _, study in studies for k in map(int, study["k"]) if k > 1})
    rows = []
    for key, studies in found.items():
        modules = dict.fromkeys(module for _, study in studies for module in study["modules"])
        rows += [_variance_row(key, module, sizes, studies) for module in modules]
    columns = ("Batch size", "BN size", "module", *(f"k = {k}" for k in sizes))
    title = "Gradient variance: does it fall as 1/k?"
    return Table(title, group.title, columns, tuple(rows), legend=VARIANCE_LEGEND) if rows else None


def _by_key(group: Group, name: str) -> dict[RowKey, list[tuple[RunRecord, Found]]]:
    """The studies in the runs' files of that name, by row, in the order of the rows."""
    with ThreadPoolExecutor(8) as pool:  # from MLflow each takes a request or two
        files = list(pool.map(lambda run: run.files(name), group.runs))
    by_key: dict[RowKey, list[tuple[RunRecord, Found]]] = defaultdict(list)
    for run, paths in zip(group.runs, files, strict=True):
        for path in paths:
            try:
                by_key[key_of(run)].append((run, json.loads(path.read_text())))
            except ValueError as error:
                raise UserError(f"{name} of {run.run_id} is damaged ({error}); make it anew") from None
    return dict(sorted(by_key.items(), key=lambda item: (item[0][2] != "normal", item[0])))


def _bn_row(key: RowKey, name: str, found: Sequence[tuple[RunRecord, Found]]) -> Row:
    def cell(metric: str) -> Cell:
        values = [value for _, study in found if (value := study[name].get(metric)) is not None]
        return mean_text(values) if values else None

    mmAPs = [(study[name]["mmAP"], study.get(RUNNING, {}).get("mmAP")) for _, study in found]
    changes = [one - usual for one, usual in mmAPs if one is not None and usual is not None]
    scored = [one for one, _ in mmAPs if one is not None]
    change = difference_text(fmean(changes)) if changes and name != RUNNING else None
    cells = (label_of(key), str(key[1]), name, *(cell(metric) for metric in COCO), change)
    runs = tuple(run for run, _ in found)
    return Row(cells, key=(*key, name), runs=runs, mmAP=fmean(scored) if scored else None)


def _variance_row(key: RowKey, module: str, sizes: Sequence[int], found: Sequence[tuple[RunRecord, Found]]) -> Row:
    def cell(k: int) -> Cell:
        ratios = [study["modules"].get(module, {}).get(str(k)) for _, study in found]
        given = [one for one in ratios if one is not None]
        if len(given) == 1:
            return f"{given[0]['ratio']:.2f} ± {given[0]['error']:.2f}"
        return mean_text([one["ratio"] for one in given], digits=2) if given else None

    cells = (label_of(key), str(key[1]), module, *(cell(k) for k in sizes))
    return Row(cells, key=(*key, module), runs=tuple(run for run, _ in found))
