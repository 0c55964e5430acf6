"""Whether the variance of the gradient falls as 1/k: what `megdet.studies.gradient_variance` found."""

from __future__ import annotations

import pandas as pd

from megdet.analysis.cells import Cell, Seeds, decimals
from megdet.analysis.comparable import Group
from megdet.analysis.studies import early_text, gradient_variances, missing_text, studied_label, studied_rows
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe
from megdet.runs.run_files import GRADIENT_VARIANCE

LEGEND = (
    "k x Var(mean of k gradients) / Var(gradient), the gradients being those of the run's own BN batches (accumulation "
    "passes) at its last weights: 1 where the variance falls as 1/k (Eq. 2-4). Of one run, ± is its standard error; "
    "over several seeds, mean ± standard deviation (seeds)."
)


def make(group: Group | None) -> Table | None:
    """How the gradient's variance falls with k, by module, in a group's runs; None without a study."""
    studied = gradient_variances(group.frames) if group else pd.DataFrame()
    if not group or studied.empty:
        return None
    sizes = sorted(studied["k"].unique())
    columns = [Column(name, Kind.NAMING) for name in ("Batch size", "BN size", "module")]
    columns += [Column(f"k = {k}", Kind.MEASURED, decimals(2)) for k in sizes]
    rows, about = [], []
    for key, early, part in studied_rows(studied, group.frames):
        for module, found in part.groupby("module", sort=False):
            cells = [studied_label(key, early), key[1], module, *(_cell(found[found["k"] == k]) for k in sizes)]
            rows.append(Row((*key, early, module), cells, (), found.drop_duplicates("run")))
        about.append(early_text(key, early, part, GRADIENT_VARIANCE))
    title = "Gradient variance: does it fall as 1/k?"
    return table_of(
        title, group.title, columns, rows, about=" ".join(filter(None, about)), legend=LEGEND, label="gradient-variance"
    )


def _cell(found: pd.DataFrame) -> Cell:
    if len(found) == 1:
        return f"{found['ratio'].item():.2f} ± {found['error'].item():.2f}"
    return Seeds(tuple(found["ratio"]))


RECIPE = Recipe("variance", make, missing=missing_text(GRADIENT_VARIANCE))
