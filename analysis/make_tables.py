"""Tables 2 and 3 of the paper from whatever runs exist, ours beside the paper's.

    python analysis/make_tables.py                            the runs in ./runs, both tables, Markdown
    python analysis/make_tables.py --table 3 --format latex --out table3.tex
    python analysis/make_tables.py --from http://host:5000 --experiment demo

Runs that differ in anything but batch, bn_size, schedule and lr.scale are not comparable: each comparable
group gets tables of its own. Seeds are averaged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ is None:  # run as `python analysis/make_tables.py`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.comparable import comparable_groups
from analysis.paper import paper_table
from analysis.render import FORMATS
from analysis.runs import RunRecord, load_runs, select
from analysis.tables import Table, empty_table, make_table
from megdet.errors import UserError

TABLES = (2, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        runs = select(
            load_runs(parsed.source, curves=False), experiment=parsed.experiment, model=parsed.model, data=parsed.data
        )
    except UserError as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 2
    text = FORMATS[parsed.format](tables_of(runs, [parsed.table] if parsed.table else TABLES))
    if parsed.out:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(text, encoding="utf-8")
        print(f"written to {parsed.out}")
    else:
        print(text, end="")
    return 0


def tables_of(runs: Sequence[RunRecord], numbers: Sequence[int]) -> list[Table]:
    """The tables asked for, one per group of comparable runs that has a row in them."""
    groups = comparable_groups(runs)
    tables = []
    for number in numbers:
        paper = paper_table(number)
        made = [table for group in groups if (table := make_table(paper, group)) is not None]
        tables += made or [empty_table(paper)]
    return tables


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, choices=TABLES, help="default: both")
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
