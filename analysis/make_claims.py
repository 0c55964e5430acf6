"""What the paper claims, and whether the runs bear it out: reproduced, not reproduced or not testable here, and why.

    python analysis/make_claims.py                            the runs in ./runs
    python analysis/make_claims.py --from sqlite:////data/mlflow.db --format html --out claims.html

Two rows differ where their means over seeds do by more than two standard errors; with one seed for all, nothing can
be said of a difference. The rules are in analysis/claims/verdict.py, the claims in analysis/claims/paper_claims.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ is None:  # run as `python analysis/make_claims.py`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.claims.evidence import Evidence
from analysis.claims.paper_claims import CLAIMS
from analysis.comparable import Group, comparable_groups
from analysis.paper import ratio_table
from analysis.render import FORMATS
from analysis.runs import CURVES, RunRecord, load_runs, select
from analysis.tables import Row, Table, runs_text
from megdet.errors import UserError

COLUMNS = ("Claim", "Where", "Verdict", "Why")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        runs = load_runs(parsed.source, curves=(*CURVES, *ratio_table().measures.values()))
        runs = select(runs, experiment=parsed.experiment, model=parsed.model, data=parsed.data)
    except UserError as error:
        print(f"make_claims: {error}", file=sys.stderr)
        return 2
    text = FORMATS[parsed.format](claims_tables(runs))
    if parsed.out:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(text, encoding="utf-8")
        print(f"written to {parsed.out}")
    else:
        print(text, end="")
    return 0


def claims_tables(runs: Sequence[RunRecord]) -> list[Table]:
    """One table for each group of comparable runs."""
    return [_table(group) for group in comparable_groups(runs)]


def _table(group: Group) -> Table:
    evidence = Evidence(group)
    rows = []
    for claim in CLAIMS:
        found = claim.judge(evidence)
        rows.append(Row((claim.text, claim.where, found.mark.value, found.why), key=(claim.text,)))
    spread = evidence.spread()
    chance = (
        "No row has two seeds, so nothing is known of chance."
        if spread is None
        else f"mmAP differs over seeds with a standard deviation of {spread:.1f}, pooled over all rows with several."
    )
    about = f"{chance} ±: two standard errors of a difference. Ratios are in percent, the rest in mmAP."
    return Table("The paper's claims", runs_text(group), COLUMNS, tuple(rows), about)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )
    parser.add_argument("--experiment", help="only runs of this MLflow experiment")
    parser.add_argument("--model", help="only runs of this model")
    parser.add_argument("--data", help="only runs on this data set")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
