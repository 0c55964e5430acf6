"""`megdet eval`: COCO's numbers of a trained run on any annotated images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.cli.predict import say_unreadable
from megdet.cli.runs import select_run
from megdet.cli.show_progress import progress
from megdet.cli.views import add_view_arguments
from megdet.runs.as_json import print_json

if TYPE_CHECKING:
    from megdet.trained.scores import Scores

SUMMARY = "score a trained run on annotated images: COCO's numbers, by class and size"
HELP = """\
Score the detector of a trained run on any annotated images: COCO's 12 numbers, and AP of each class and size of
object; of masks too, where both the run and the file have them. Classes go by their names; the file may list fewer
than the run knows. The training data is not needed.
Images that cannot be read count as images in which nothing was found.

  megdet eval b16-bn16 --annotations annotations/instances_val2017.json --images val2017
  megdet eval b16-bn16 --annotations labels.json --images photos --json

Exit code: 0 all is well, 1 some images cannot be read, 2 a mistake in what was asked.
"""
BY_CLASS = ("mmAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "mmAR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="one run")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="a COCO annotation file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its file names start")
    add_view_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON (docs/trained-runs.md has its keys)")


def run(parsed: argparse.Namespace) -> int:
    """Score; 0, or 1 where some images cannot be read."""
    folder = select_run(parsed.run_name)
    # Imported here: they bring torch.
    from megdet.trained.run import TrainedRun
    from megdet.trained.scores import score_on
    from megdet.trained.views import views_of

    views = views_of(parsed.sizes, flip=parsed.flip)
    trained = TrainedRun(folder.path)
    with progress("images") as advance:
        scores = score_on(trained, parsed.annotations, parsed.images, views=views, advance=advance)
    if parsed.json:
        print_json(scores.to_json())
    else:
        _print(scores, title=trained.title)
    return say_unreadable(scores.unreadable, scores.images)


def _print(scores: Scores, *, title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(f"{title} on {scores.images} images of {scores.annotations}", soft_wrap=True)
    numbers = list(scores.metrics.items())
    half = len(numbers) // 2
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_header=False)
    for left, right in zip(numbers[:half], numbers[half:], strict=True):
        table.add_row(left[0], _cell(left[1]), right[0], _cell(right[1]))
    console.print(table)
    for kind in ("", "mask_") if "mask_mmAP" in scores.metrics else ("",):
        by_class = Table("class", box=box.SIMPLE, padding=(0, 1, 0, 0))
        for name in BY_CLASS:
            by_class.add_column((kind if name == "mmAP" else "") + name.removeprefix("AP_"), justify="right")
        for name, own in scores.by_class.items():
            by_class.add_row(name, *(_cell(own[kind + column]) for column in BY_CLASS))
        console.print(by_class)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
