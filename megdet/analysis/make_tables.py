"""Tables 1 to 4 of the paper from whatever runs exist, ours beside the paper's, and what was studied in the runs.

    python analysis/make_tables.py                            the runs in ./runs, Tables 1 to 4, Markdown
    python analysis/make_tables.py --table 3 --format latex --out table3.tex
    python analysis/make_tables.py --table claims             what the paper claims, and whether the runs bear it out
    python analysis/make_tables.py --table bn                 runs studied by `python -m megdet.studies.bn_study`
    python analysis/make_tables.py --table variance           the same of `python -m megdet.studies.gradient_variance`
    python analysis/make_tables.py --table mine.yaml          the rows of a sweep file of your own (docs/sweep-files.md)
    python analysis/make_tables.py --table 3 seed=0,1,2 lr.base=0.04
    python analysis/make_tables.py --from http://host:5000 experiment=demo --provenance
    python analysis/make_tables.py --table 3 --against other_runs/
    python analysis/make_tables.py --table 3 --against precision=bf16

Runs that differ in anything but batch, bn_size, schedule and lr.scale, or in the files that they learned from, are
not comparable: each comparable group gets tables of its own. Seeds are averaged. A table whose runs are of several
commits says so.
With --against, KEY=VALUE chooses from both sets, except for what --against itself names: `experiment=a --against b`
sets the runs of experiment a beside those of experiment b.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from megdet.analysis.against import beside, differences, naming_left_out, nearest, second_set, short_name
from megdet.analysis.claims.table import folded
from megdet.analysis.commits import with_commits
from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.frames import read_runs
from megdet.analysis.options import add_all_option, add_run_options, program_of, wanted_of, without_failed, write_text
from megdet.analysis.provenance import provenance_of
from megdet.analysis.render import FORMATS
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.table import Table
from megdet.analysis.tables.recipe import Recipe
from megdet.analysis.tables.registry import PAPER_TABLES, TABLES
from megdet.analysis.tables.spec_table import recipe_of
from megdet.analysis.wanted import select
from megdet.errors import UserError

COMMAND = "python analysis/make_tables.py"


def main(arguments: Sequence[str] | None = None, *, command: str = COMMAND) -> int:
    """Run the command line, in whose help the program is called `command`; the exit code."""
    parsed = _parser(command).parse_intermixed_args(arguments)
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
        print(f"{program_of(command)}: {error}", file=sys.stderr)
        return 2
    return 0


def _tables(parsed: argparse.Namespace) -> list[Table]:
    recipes = [_recipe(parsed.table)] if parsed.table else list(PAPER_TABLES.values())
    epochs = [name for recipe in recipes for name in recipe.epochs]
    runs, wanted = read_runs(parsed.source, epochs=epochs), wanted_of(parsed)
    if parsed.against is not None:
        both = second_set(parsed.against, runs, wanted=wanted, epochs=epochs)
        runs, second = (without_failed(each, parsed) for each in both)
        made = tables_of(runs, recipes, against=second, name=short_name(parsed.against))
    else:
        runs = without_failed(select(runs, **wanted), parsed)
        made = tables_of(runs, recipes, foreign=parsed.all)
    if not made:
        recipe = recipes[0]
        why = recipe.missing(runs) if recipe.missing else "the runs have nothing to show in it yet"
        raise UserError(f"--table {recipe.name}: {why}")
    if recipes == [TABLES["claims"]] and not parsed.all and not parsed.against:
        return list(map(folded, made))
    return made


def _recipe(asked: str) -> Recipe:
    """The table of that name, or of that sweep file. Raises UserError."""
    if asked in TABLES:
        return TABLES[asked]
    if asked.endswith((".yaml", ".yml")):
        return recipe_of(Path(asked))
    raise UserError(f"--table {asked}: use one of {', '.join(TABLES)}, or the path of a sweep file (.yaml)")


def tables_of(
    runs: RunFrames,
    recipes: Iterable[Recipe],
    *,
    against: RunFrames | None = None,
    name: str = "",
    foreign: bool = True,
) -> list[Table]:
    """The tables asked for, one per group of comparable runs that has a row in them.

    Beside each group stands the nearest group of the runs `against`, under their `name`; groups of theirs that are
    the nearest of none are named. Without `foreign`, groups of other data or another model stay out of the paper's
    tables where there is one that is like the paper's.
    """
    recipes = list(recipes)
    groups = {
        varied: [comparable_groups(frames, varied) if frames else [] for frames in (runs, against)]
        for varied in {recipe.varied for recipe in recipes}
    }
    if not foreign and all(recipe in PAPER_TABLES.values() for recipe in recipes):
        groups = {varied: [_of_the_paper(own), others] for varied, (own, others) in groups.items()}
    return [table for recipe in recipes for table in _tables_of(recipe, *groups[recipe.varied], name=name)]


def _of_the_paper(groups: Sequence[Group]) -> list[Group]:
    """Without those of other data or another model, where any is of the paper's; they are named on standard error."""
    own = [group for group in groups if not group.is_foreign]
    left = [group.title for group in groups if group.is_foreign] if own else []
    if left:
        print(f"left out: {'; '.join(left)} (--all)", file=sys.stderr)
    return own or list(groups)


def _tables_of(recipe: Recipe, groups: Sequence[Group], others: Sequence[Group], *, name: str) -> list[Table]:
    theirs = {other.title: table for other in others if (table := _made(recipe, other)) is not None}
    candidates = [other for other in others if other.title in theirs] or others
    made, shown = [], set()
    for group in groups:
        table = _made(recipe, group)
        if table is not None and others:
            other = nearest(group, candidates)
            shown.add(other.title)
            table = beside(table, theirs.get(other.title), name=name, differing=differences(group, other))
        if table is not None:
            made.append(table)
    made = made or [table for table in [_made(recipe, None)] if table is not None]
    left = [other for other in others if other.title in theirs and other.title not in shown]
    return [naming_left_out(table, left, name=name) for table in made]


def _made(recipe: Recipe, group: Group | None) -> Table | None:
    table = recipe.make(group)
    return table and with_commits(table)


def _parser(command: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = (__doc__ or "").replace(COMMAND, command)
    parser = argparse.ArgumentParser(prog=command, description=description, formatter_class=raw)
    parser.add_argument(
        "--table", metavar="NAME|FILE.yaml", help=f"{', '.join(TABLES)}, or a sweep file; default: 1 to 4"
    )
    parser.add_argument("--format", choices=list(FORMATS), default="markdown")
    add_run_options(parser)
    add_all_option(parser, more=", with other data and models beside the paper's, with every claim")
    parser.add_argument("--provenance", action="store_true", help="below each table, its run ids, hashes and commits")
    parser.add_argument(
        "--against",
        metavar="EXPERIMENT|KEY=VALUE|FOLDER|URI",
        help="a second set of runs, as columns of the same rows; KEY: commit, sweep, a setting or an MLflow tag",
    )
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    return parser
