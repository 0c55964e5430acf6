"""The options that the programs in `analysis/` share: where the runs are, which runs are wanted, where to write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megdet.errors import UserError

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
