"""The options that the programs in `analysis/` share: where the runs are, which runs are wanted, where to write."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from megdet.analysis.run_frames import RunFrames
from megdet.analysis.wanted import Wanted
from megdet.errors import UserError
from megdet.runs.status import Status
from megdet.settings.paths import writing_to
from megdet.settings.rules import shown

CAME_TO_NOTHING = (Status.FAILED, Status.CANCELLED, Status.LOST)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--from`, and which runs are wanted; for `parse_intermixed_args`, since those may stand anywhere."""
    parser.add_argument(
        "wanted", nargs="*", metavar="KEY=VALUE,...",
        help="only runs with one of these values, in the words of a launch: sweep=table3, experiment=demo, seed=0,1, "
        "lr.base=0.02; KEY: sweep, experiment, status, commit, a setting or an MLflow tag",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )


def add_all_option(parser: argparse.ArgumentParser, *, more: str = "") -> None:
    """`--all`, for what leaves failed runs out unless asked (`without_failed`), and `more`."""
    parser.add_argument("--all", action="store_true", help=f"with failed, cancelled and lost runs{more}")


def program_of(command: str) -> str:
    """What a message begins with: `make_tables`, or the door's name, `megdet tables`."""
    return Path(command).stem if command.endswith(".py") else command


def without_failed(runs: RunFrames, parsed: argparse.Namespace) -> RunFrames:
    """The runs but for those that came to nothing, which are counted on standard error; diverged runs are results.

    All of them with --all, or where `status=` chose them. UserError where nothing else is there.
    """
    failed = runs.runs["status"].isin(CAME_TO_NOTHING)
    if parsed.all or not failed.any() or "status" in wanted_of(parsed):
        return runs
    if failed.all():
        raise UserError(
            f"all {len(failed)} runs failed, were cancelled or lost; --all shows them, `megdet why` says why"
        )
    print(f"left out: {failed.sum()} of {len(failed)} runs failed, were cancelled or lost (--all)", file=sys.stderr)
    return runs.where(~failed)


def wanted_of(parsed: argparse.Namespace) -> Wanted:
    """The runs that were asked for, as `select` takes them. UserError for what is no KEY=VALUE, or a KEY twice."""
    wanted: dict[str, str] = {}
    for text in parsed.wanted:
        key, equals, values = text.partition("=")
        if not (key and equals and values):
            raise UserError(f"{shown(text)}: write KEY=VALUE, such as experiment=demo or seed=0,1,2")
        if key in wanted:
            raise UserError(f"{text}: {key} is there twice; write {key}={wanted[key]},{values}")
        wanted[key] = values
    return wanted


def write_text(out: Path, text: str) -> None:
    """Write the file `--out` and say so; missing folders are made. Raises UserError if that fails."""
    with writing_to(out, way_out="give the path of a file that can"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    print(f"written to {out}")
