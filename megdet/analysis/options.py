"""The options that the programs in `analysis/` share: where the runs are, which runs are wanted, where to write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megdet.analysis.frames import RunFrames
from megdet.errors import UserError
from megdet.runs.status import Status

CAME_TO_NOTHING = (Status.FAILED, Status.CANCELLED, Status.LOST)
FILTERS = {
    "sweep": "only runs of this sweep, such as table3",
    "experiment": "only runs of this MLflow experiment",
    "model": "only runs of this model",
    "data": "only runs on this data set",
}


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """`--from`, and an option for each of FILTERS."""
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )
    for name, meaning in FILTERS.items():
        parser.add_argument(f"--{name}", metavar="NAME", help=meaning)


def add_all_option(parser: argparse.ArgumentParser) -> None:
    """`--all`, for what leaves failed runs out unless asked (`without_failed`)."""
    parser.add_argument(
        "--all", action="store_true",
        help="with failed, cancelled and lost runs, with other data and models beside the paper's, with every claim",
    )  # fmt: skip


def without_failed(runs: RunFrames, parsed: argparse.Namespace) -> RunFrames:
    """The runs but for those that came to nothing, which are counted on standard error; all of them with --all.

    Diverged runs are results. UserError where nothing else is there.
    """
    failed = runs.runs["status"].isin(CAME_TO_NOTHING)
    if parsed.all or not failed.any():
        return runs
    if failed.all():
        raise UserError(
            f"all {len(failed)} runs failed, were cancelled or lost; --all shows them, `megdet why` says why"
        )
    print(f"left out: {failed.sum()} of {len(failed)} runs failed, were cancelled or lost (--all)", file=sys.stderr)
    return runs.where(~failed)


def wanted_of(parsed: argparse.Namespace) -> dict[str, str]:
    """The FILTERS that were given, with their values: what `analysis.runs.select` takes."""
    return {name: value for name in FILTERS if (value := getattr(parsed, name)) is not None}


@contextmanager
def writing_to(out: Path, *, kind: str) -> Iterator[None]:
    """Context for writing to `--out`, a `file` or a `folder`: failures become UserError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"--out {out}: cannot be written ({why}); give the path of a {kind} that can") from None


def write_text(out: Path, text: str) -> None:
    """Write the file `--out` and say so; missing folders are made. Raises UserError if that fails."""
    with writing_to(out, kind="file"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    print(f"written to {out}")
