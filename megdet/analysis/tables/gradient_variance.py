"""Whether the variance of the gradient falls as 1/k: what `megdet.studies.gradient_variance` found."""

from __future__ import annotations

from megdet.analysis.cells import Cell, Seeds, decimals
from megdet.analysis.comparable import Group
from megdet.analysis.studies import (
    Ratios,
    StudiedRow,
    early_rows_text,
    gradient_variances,
    missing_text,
    studied_rows,
)
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe
from megdet.runs.journal import GRADIENT_VARIANCE

LEGEND = (
    "k x Var(mean of k gradients) / Var(gradient), the gradients being those of the run's own BN batches (accumulation "
    "passes) at its last weights: 1 where the variance falls as 1/k (Eq. 2-4). Of one run, ± is its standard error; "
    "over several seeds, mean ± standard deviation (seeds)."
)


def make(group: Group | None) -> Table | None:
    """How the gradient's variance falls with k, by module, in a group's runs; None without a study."""
    rows = studied_rows(gradient_variances(group.frames)) if group else []
    if not group or not rows:
        return None
    found = [by_k for row in rows for study in row.studies for by_k in study.found.values()]
    sizes = sorted({k for by_k in found for k in by_k})
    naming = [Column(name, Kind.NAMING) for name in ("Batch size", "BN size", "module")]
    columns = [*naming, *(Column(f"k = {k}", Kind.MEASURED, decimals(2)) for k in sizes)]
    made = []
    for row in rows:
        modules = dict.fromkeys(module for study in row.studies for module in study.found)
        made += [_row(row, module, sizes) for module in modules]
    title = "Gradient variance: does it fall as 1/k?"
    about = early_rows_text(rows, GRADIENT_VARIANCE)
    return table_of(title, group.title, columns, made, about=about, legend=LEGEND, label="gradient-variance")


def _row(row: StudiedRow[Ratios], module: str, sizes: list[int]) -> Row:
    def cell(k: int) -> Cell:
        given = [by_k[k] for study in row.studies if k in (by_k := study.found.get(module, {}))]
        if len(given) == 1:
            return f"{given[0].ratio:.2f} ± {given[0].error:.2f}"
        return Seeds(tuple(one.ratio for one in given))

    return Row((*row.key, row.early, module), [row.label, row.key[1], module, *map(cell, sizes)], (), row.runs)


RECIPE = Recipe("variance", make, missing=missing_text(GRADIENT_VARIANCE))
