"""The paper's claims with their verdicts, as a table; why, in the notes below it."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from megdet.analysis.claims.evidence import Evidence
from megdet.analysis.claims.paper_claims import CLAIMS
from megdet.analysis.claims.verdict import Mark
from megdet.analysis.comparable import Group
from megdet.analysis.paper import ratio_table
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.analysis.tables.recipe import Recipe

COLUMNS = (
    Column("Claim", Kind.NAMING),
    Column("Where", Kind.NAMING, in_notes=False),
    Column("Verdict", Kind.MEASURED),
)
LEGEND = (
    "±: half-width of the 95 % confidence interval of a difference of means over seeds (Student's t, Bonferroni within "
    "the claim), from the standard deviation pooled over the rows that the claim "
    "compares, those with failed runs left out: such a row is below any without. Where no row has two seeds, nothing "
    "can be said of a difference. "
    "Ratios are in percent, the rest in mmAP. undecided: the interval holds what is claimed and its opposite; with so "
    "many seeds it would not, were difference and deviation the same. failed: diverged, or ended below a tenth of the "
    "best run's mmAP. The "
    "rules: analysis/claims/verdict.py."
)


def make(group: Group | None) -> Table | None:
    """A row for each of CLAIMS, judged by a group's runs; None without a group."""
    if not group:
        return None
    evidence = Evidence(group)
    rows = []
    for claim in CLAIMS:
        found = claim.judge(evidence)
        notes = (found.why,) if found.why else ()
        rows.append(Row((claim.text,), (claim.text, claim.where, found.mark.value), notes, group.runs))
    rows_of = [len(evidence.ended(key)) for key in evidence.rows]
    about = (
        f"Rows of runs that have ended: {sum(map(bool, rows_of))}; with several seeds: {sum(n > 1 for n in rows_of)}."
    )
    return table_of("The paper's claims", group.heading, COLUMNS, rows, about=about, legend=LEGEND, label="claims")


def folded(table: Table) -> Table:
    """The same with all claims that nothing here can judge in one line; where it is one claim, as it is."""
    is_open = (table.frame["Verdict"] == Mark.NOT_TESTABLE.value).tolist()
    if sum(is_open) < 2:
        return table
    kept = [place for place, folds in enumerate(is_open) if not folds]
    name = f"{sum(is_open)} {'more claims' if kept else 'claims'} (--all lists them)"
    last = pd.DataFrame([[name, "", Mark.NOT_TESTABLE.value]], ["folded"], table.frame.columns, dtype=object)
    runs = table.runs[table.runs["row"].isin(kept)]
    return replace(
        table,
        frame=pd.concat([table.frame.iloc[kept], last]),
        notes=(*(table.notes[place] for place in kept), ()),
        runs=runs.assign(row=runs["row"].map({place: new for new, place in enumerate(kept)})) if kept else table.runs,
    )


RECIPE = Recipe("claims", make, epochs=("mmAP", *ratio_table().measures.values()))
