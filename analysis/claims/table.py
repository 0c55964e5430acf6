"""The paper's claims with their verdicts, as a table; why, in the notes below it."""

from __future__ import annotations

from analysis.claims.evidence import Evidence
from analysis.claims.paper_claims import CLAIMS
from analysis.comparable import Group
from analysis.tables import Row, Table

LEGEND = (
    "±: two standard errors of a difference of means over seeds, from the standard deviation pooled over all rows with "
    "several seeds; with one seed for all, nothing can be said of a difference. Ratios are in percent, the rest in "
    "mmAP. failed: diverged, or ended below a tenth of the best run's mmAP. The rules: analysis/claims/verdict.py."
)


def claims_table(group: Group) -> Table:
    """Every claim of CLAIMS, judged by a group's runs."""
    evidence = Evidence(group)
    rows = []
    for claim in CLAIMS:
        found = claim.judge(evidence)
        notes = (found.why,) if found.why else ()
        rows.append(Row((claim.text, claim.where, found.mark.value), notes, key=(claim.text,), runs=group.runs))
    spread = evidence.spread()
    chance = (
        "No row has two seeds, so nothing is known of chance."
        if spread is None
        else f"The standard deviation of mmAP over seeds is {spread:.2f}."
    )
    return Table("The paper's claims", group.heading, ("Claim", "Where", "Verdict"), tuple(rows), chance, LEGEND)
