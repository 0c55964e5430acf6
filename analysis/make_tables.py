"""Tables 1 to 4 of the paper from whatever runs exist, ours beside the paper's, and what was studied in the runs.

    python analysis/make_tables.py                            the runs in ./runs, Tables 1 to 4, Markdown
    python analysis/make_tables.py --table 3 --format latex --out table3.tex
    python analysis/make_tables.py --table claims             what the paper claims, and whether the runs bear it out
    python analysis/make_tables.py --table bn                 of the runs that `python -m megdet.bn_study` has studied
    python analysis/make_tables.py --table variance           the same of `python -m megdet.gradient_variance`
    python analysis/make_tables.py --from http://host:5000 --experiment demo --provenance
    python analysis/make_tables.py --table 3 --against other_runs/
    python analysis/make_tables.py --table 3 --against precision=bf16

Runs that differ in anything but batch, bn_size, schedule and lr.scale are not comparable: each comparable
group gets tables of its own. Seeds are averaged. A table whose runs are of several commits says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ is None:  # run as `python analysis/make_tables.py`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.against import beside, differences, nearest, second_set, short_name
from analysis.claims.table import claims_table
from analysis.commits import with_commits
from analysis.comparable import Group, comparable_groups
from analysis.paper import paper_table
from analysis.provenance import provenance_of
from analysis.render import FORMATS
from analysis.runs import RunRecord, load_runs, select
from analysis.studies import bn_table, variance_table
from analysis.table1 import MEASURES, make_ratio_table
from analysis.table2_3 import empty_table, make_table
from analysis.table4 import make_leaderboard
from analysis.tables import Table
from megdet.errors import UserError
from megdet.tracking.journal import BN_STUDY, GRADIENT_VARIANCE

TABLES = ("1", "2", "3", "4")
"""The paper's."""
CLAIMS = "claims"
STUDIES = {"bn": ("megdet.bn_study", BN_STUDY), "variance": ("megdet.gradient_variance", GRADIENT_VARIANCE)}
"""What can be studied in a trained run: the program that does it and the file that it leaves."""


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
    names = [parsed.table] if parsed.table else TABLES
    curves: tuple[str, ...] = MEASURES if "1" in names else ()
    if CLAIMS in names:
        curves = ("mmAP", *MEASURES)
    runs = load_runs(parsed.source, curves=curves)
    second: list[RunRecord] = []
    if parsed.against:
        runs, second = second_set(parsed.against, runs, curves=curves)
        second = select(second, model=parsed.model, data=parsed.data)
    wanted = {name: getattr(parsed, name) for name in ("sweep", "experiment", "model", "data")}
    runs = select(runs, **wanted)
    made = tables_of(runs, names, against=second, name=short_name(parsed.against) if parsed.against else "")
    if not made:
        program, file = STUDIES[parsed.table]
        raise UserError(f"--table {parsed.table}: no run has a {file} yet; `python -m {program} RUN_FOLDER` makes it")
    return made


def tables_of(
    runs: Sequence[RunRecord], names: Sequence[str], *, against: Sequence[RunRecord] = (), name: str = ""
) -> list[Table]:
    """The tables asked for, one per group of comparable runs that has a row in them.

    Beside each group stands the nearest group of the runs `against`, under their `name`.
    """
    groups, others = comparable_groups(runs), comparable_groups(against)
    tables = []
    for asked in names:
        made = []
        for group in groups:
            table = _table_of(asked, group)
            if table is not None and others:
                other = nearest(group, others)
                table = beside(table, _table_of(asked, other), name=name, differing=differences(group, other))
            if table is not None:
                made.append(table)
        tables += made or [table for table in [_table_of(asked, None)] if table is not None]
    return tables


def _table_of(name: str, group: Group | None) -> Table | None:
    """One table of one group; of the paper's numbers alone without a group."""
    match name:
        case "1":
            table = make_ratio_table(group)
        case "4":
            table = make_leaderboard(group)
        case "claims":
            table = claims_table(group) if group else None
        case "bn":
            table = bn_table(group) if group else None
        case "variance":
            table = variance_table(group) if group else None
        case _:
            paper = paper_table(int(name))
            table = make_table(paper, group) if group else empty_table(paper)
    return table and with_commits(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=(*TABLES, CLAIMS, *STUDIES), help="default: 1 to 4")
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )
    parser.add_argument("--sweep", metavar="NAME", help="only runs of this sweep, such as table3")
    parser.add_argument("--experiment", help="only runs of this MLflow experiment")
    parser.add_argument("--model", help="only runs of this model")
    parser.add_argument("--data", help="only runs on this data set")
    parser.add_argument("--provenance", action="store_true", help="below each table, its run ids, hashes and commits")
    parser.add_argument(
        "--against",
        metavar="EXPERIMENT|KEY=VALUE|FOLDER|URI",
        help="a second set of runs, as columns of the same rows; KEY: commit, sweep, a setting or an MLflow tag",
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return parser


if __name__ == "__main__":
    sys.exit(main())
