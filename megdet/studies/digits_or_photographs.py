"""Is a detector worse on new images for their digits, for their photographs, or for being new at all?

    python -m megdet.studies.digits_or_photographs RUN [RUN ...]

Training and validation of `data=digits` share neither a digit nor a photograph. Scores runs on four sets of new
images, as many as validation has: of training's photographs or validation's, with training's digits or validation's.
That of both of validation's is the validation set itself. The four have the same random choices behind them: how large
a part of a photograph, how many digits, how bright.

Runs in one process, on a GPU if there is one; the training data is not needed. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from megdet.analysis.cells import decimals
from megdet.data import digits
from megdet.data.generated import categories_of, painter_of, write_split
from megdet.data.known import SEED
from megdet.errors import UserError
from megdet.trained.run import TrainedRun

SETS = {
    "both known": digits.Material(training_photographs=True, training_digits=True),
    "photographs known": digits.Material(training_photographs=True, training_digits=False),
    "digits known": digits.Material(training_photographs=False, training_digits=True),
    "both new": digits.Material(training_photographs=False, training_digits=False),
}
"""What of an image's material was trained on; the image never was."""
VALIDATION = 1
"""The split whose random choices all four sets have."""


def make_set(name: str, folder: Path, *, images: int, image_size: int) -> None:
    """One of SETS: `folder/<name>/` with its images, and the annotation file `folder/<name>.json`."""
    content = write_split(
        partial(digits.paint_of, SETS[name]),
        folder / name,
        images,
        image_size,
        categories=categories_of(painter_of("digits")),
        seed=SEED,
        split=VALIDATION,
    )
    (folder / f"{name}.json").write_text(json.dumps(content))


def score(run: TrainedRun, folder: Path) -> dict[str, float | None]:
    """The mmAP of a run on each of SETS, which `make_set` has made, in percent."""
    return {name: run.evaluate(folder / f"{name}.json", folder / name).metrics["mmAP"] for name in SETS}


def trained_on_digits(path: Path) -> TrainedRun:
    """The run of a folder. Raises UserError where it has no weights, or other data than `data=digits`."""
    run = TrainedRun(path)
    if run.plan.config.data.name != "digits":
        raise UserError(f"{run.name} was trained with data={run.plan.config.data.name}; name runs with data=digits")
    return run


def _cell(values: Sequence[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return decimals(1)(measured) if measured else "-"


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.studies.digits_or_photographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder")
    console = Console(stderr=True)
    try:
        runs = [trained_on_digits(path) for path in parser.parse_args().runs]
        data = {(run.plan.config.data.val_images, run.plan.config.data.min_size) for run in runs}
        if len(data) > 1:
            raise UserError("the runs have other data.val_images or data.min_size; name runs that have the same")
        ((images, image_size),) = data
        assert images is not None, "as planned"
        with tempfile.TemporaryDirectory() as folder:
            for name in track(SETS, "making images", console=console, transient=True):
                make_set(name, Path(folder), images=images, image_size=image_size)
            found = {run.name: score(run, Path(folder)) for run in track(runs, "runs", console=console, transient=True)}
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    first = Column("mmAP on images with", no_wrap=True)
    table = Table(first, *SETS, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name, scores in found.items():
        table.add_row(name, *(_cell([value]) for value in scores.values()))
    if len(runs) > 1:
        table.add_section()
        table.add_row(
            "mean ± standard deviation", *(_cell([scores[name] for scores in found.values()]) for name in SETS)
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
