"""Tables 1 to 4 of the paper from whatever runs exist, ours beside the paper's, and what was studied in the runs.

    python analysis/make_tables.py                            the runs in ./runs, Tables 1 to 4, Markdown
    python analysis/make_tables.py --table 3 --format latex --out table3.tex
    python analysis/make_tables.py --table claims             what the paper claims, and whether the runs bear it out
    python analysis/make_tables.py --table bn                 runs studied by `python -m megdet.studies.bn_study`
    python analysis/make_tables.py --table variance           the same of `python -m megdet.studies.gradient_variance`
    python analysis/make_tables.py --from http://host:5000 --experiment demo --provenance
    python analysis/make_tables.py --table 3 --against other_runs/
    python analysis/make_tables.py --table 3 --against precision=bf16

Runs that differ in anything but batch, bn_size, schedule and lr.scale, or in the files that they learned from, are
not comparable: each comparable group gets tables of its own. Seeds are averaged. A table whose runs are of several
commits says so.
With --against, --sweep, --experiment, --model and --data choose from both sets, except for what --against itself
names: `--experiment a --against b` sets the runs of experiment a beside those of experiment b.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from megdet.analysis.against import beside, differences, naming_left_out, nearest, second_set, short_name
from megdet.analysis.claims.table import claims_table
from megdet.analysis.commits import with_commits
from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.options import add_run_options, wanted_of, write_text
from megdet.analysis.paper import paper_table
from megdet.analysis.provenance import provenance_of
from megdet.analysis.render import FORMATS
from megdet.analysis.runs import RunRecord, load_runs, select
from megdet.analysis.studies import PROGRAMS, bn_table, variance_table
from megdet.analysis.table1 import MEASURES, make_ratio_table
from megdet.analysis.table2_3 import empty_table, make_table
from megdet.analysis.table4 import make_leaderboard
from megdet.analysis.tables import Table
from megdet.errors import UserError
from megdet.runs.folder import BN_STUDY, GRADIENT_VARIANCE

TABLES = ("1", "2", "3", "4")
"""The paper's."""
CLAIMS = "claims"
STUDIES = {"bn": BN_STUDY, "variance": GRADIENT_VARIANCE}
"""What can be studied in a trained run: the file that it leaves."""


COMMAND = "python analysis/make_tables.py"


def main(arguments: Sequence[str] | None = None, *, command: str = COMMAND) -> int:
    """Run the command line, in whose help the program is called `command`; the exit code."""
    parsed = _parser(command).parse_args(arguments)
    try:
        tables = _tables(parsed)
        if parsed.provenance:
            tables = [each for table in tables for each in (table, provenance_of(table)) if each is not None]
        text = FORMATS[parsed.format](tables)
        if parsed.out:
            write_text(parsed.out, text)
        else:
            print(text, end="")
    except UserError as error:
        print(f"make_tables: {error}", file=sys.stderr)
        return 2
    return 0


def _tables(parsed: argparse.Namespace) -> list[Table]:
    names = [parsed.table] if parsed.table else TABLES
    curves: tuple[str, ...] = MEASURES if "1" in names else ()
    if CLAIMS in names:
        curves = ("mmAP", *MEASURES)
    runs = load_runs(parsed.source, curves=curves)
    second: list[RunRecord] = []
    if parsed.against:
        runs, second = second_set(parsed.against, runs, wanted=wanted_of(parsed), curves=curves)
    else:
        runs = select(runs, **wanted_of(parsed))
    made = tables_of(runs, names, against=second, name=short_name(parsed.against) if parsed.against else "")
    if not made:
        file = STUDIES[parsed.table]
        way = f"`python -m {PROGRAMS[file]} RUN_FOLDER` makes it"
        if not any(run.folder for run in runs):  # from MLflow
            way += ", `megdet sync` pushes one that is in a run folder"
        raise UserError(f"--table {parsed.table}: no run has a {file} yet; {way}")
    return made


def tables_of(
    runs: Sequence[RunRecord], names: Sequence[str], *, against: Sequence[RunRecord] = (), name: str = ""
) -> list[Table]:
    """The tables asked for, one per group of comparable runs that has a row in them.

    Beside each group stands the nearest group of the runs `against`, under their `name`; groups of theirs that are
    the nearest of none are named.
    """
    groups, others = comparable_groups(runs), comparable_groups(against)
    tables = []
    for asked in names:
        theirs = {other.title: table for other in others if (table := _table_of(asked, other)) is not None}
        candidates = [other for other in others if other.title in theirs] or others
        made, shown = [], set()
        for group in groups:
            table = _table_of(asked, group)
            if table is not None and others:
                other = nearest(group, candidates)
                shown.add(other.title)
                differing = differences(group, other)
                table = beside(table, theirs.get(other.title), name=name, differing=differing)
            if table is not None:
                made.append(table)
        made = made or [table for table in [_table_of(asked, None)] if table is not None]
        left = [other for other in others if other.title in theirs and other.title not in shown]
        tables += [naming_left_out(table, left, name=name) for table in made]
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


def _parser(command: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = (__doc__ or "").replace(COMMAND, command)
    parser = argparse.ArgumentParser(prog=command, description=description, formatter_class=raw)
    parser.add_argument("--table", choices=(*TABLES, CLAIMS, *STUDIES), help="default: 1 to 4")
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    add_run_options(parser)
    parser.add_argument("--provenance", action="store_true", help="below each table, its run ids, hashes and commits")
    parser.add_argument(
        "--against",
        metavar="EXPERIMENT|KEY=VALUE|FOLDER|URI",
        help="a second set of runs, as columns of the same rows; KEY: commit, sweep, a setting or an MLflow tag",
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return parser
