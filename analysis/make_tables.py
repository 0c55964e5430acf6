"""Tables 1 to 4 of the paper from whatever runs exist, ours beside the paper's.

    python analysis/make_tables.py                            the runs in ./runs, all tables, Markdown
    python analysis/make_tables.py --table 3 --format latex --out table3.tex
    python analysis/make_tables.py --from http://host:5000 --experiment demo --provenance
    python analysis/make_tables.py --table 3 --against other_runs/

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

from analysis.against import beside, differences, nearest, second_set, short_name
from analysis.comparable import Group, comparable_groups
from analysis.paper import paper_table
from analysis.provenance import provenance_of
from analysis.render import FORMATS
from analysis.runs import RunRecord, load_runs, select
from analysis.table1 import MEASURES, make_ratio_table
from analysis.table4 import make_leaderboard
from analysis.tables import Table, empty_table, make_table
from megdet.errors import UserError

TABLES = (1, 2, 3, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        tables = _tables(parsed)
    except UserError as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 2
    if parsed.provenance:
        tables = [each for table in tables for each in (table, provenance_of(table)) if each is not None]
    text = FORMATS[parsed.format](tables)
    if parsed.out:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(text, encoding="utf-8")
        print(f"written to {parsed.out}")
    else:
        print(text, end="")
    return 0


def _tables(parsed: argparse.Namespace) -> list[Table]:
    numbers = [parsed.table] if parsed.table else TABLES
    curves = MEASURES if 1 in numbers else ()
    runs = load_runs(parsed.source, curves=curves)
    second: list[RunRecord] = []
    if parsed.against:
        runs, second = second_set(parsed.against, runs, curves=curves)
    runs = select(runs, experiment=parsed.experiment, model=parsed.model, data=parsed.data)
    if not parsed.against:
        return tables_of(runs, numbers)
    second = select(second, model=parsed.model, data=parsed.data)
    return tables_of(runs, numbers, against=second, name=short_name(parsed.against))


def tables_of(
    runs: Sequence[RunRecord], numbers: Sequence[int], *, against: Sequence[RunRecord] = (), name: str = ""
) -> list[Table]:
    """The tables asked for, one per group of comparable runs that has a row in them.

    Beside each group stands the nearest group of the runs `against`, under their `name`.
    """
    groups, others = comparable_groups(runs), comparable_groups(against)
    tables = []
    for number in numbers:
        made = []
        for group in groups:
            table = _table_of(number, group)
            if table is not None and others:
                other = nearest(group, others)
                table = beside(table, _table_of(number, other), name=name, differing=differences(group, other))
            if table is not None:
                made.append(table)
        tables += made or [table for table in [_table_of(number, None)] if table is not None]
    return tables


def _table_of(number: int, group: Group | None) -> Table | None:
    """One table of one group; of the paper's numbers alone without a group."""
    if number == 1:
        return make_ratio_table(group)
    if number == 4:
        return make_leaderboard(group)
    paper = paper_table(number)
    return make_table(paper, group) if group else empty_table(paper)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, choices=TABLES, help="default: all")
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )
    parser.add_argument("--experiment", help="only runs of this MLflow experiment")
    parser.add_argument("--model", help="only runs of this model")
    parser.add_argument("--data", help="only runs on this data set")
    parser.add_argument("--provenance", action="store_true", help="below each table, its run ids, hashes and commits")
    parser.add_argument(
        "--against", metavar="EXPERIMENT|FOLDER|URI", help="a second set of runs, as further columns of the same rows"
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
