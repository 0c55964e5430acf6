"""`megdet ensemble`: several trained runs as one detector, scored beside each of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.cli.predict import say_unreadable
from megdet.cli.runs import select_runs
from megdet.cli.show_progress import progress
from megdet.cli.views import add_view_arguments
from megdet.runs.as_json import print_json
from megdet.settings.paths import writing_to

if TYPE_CHECKING:
    from megdet.trained.ensemble import Ensemble

SUMMARY = "score several trained runs together, as one detector, beside each alone"
HELP = """\
Fuse what several trained runs find in the same images, and score it like one model: COCO's numbers of each run and
of all together. The runs may differ in everything but their classes.

  megdet ensemble 'b16-*' --annotations annotations/instances_val2017.json --images val2017
  megdet ensemble RUN RUN --annotations labels.json --images photos --sizes 600,800 --flip --out ensemble

--method wbf (weighted box fusion, Solovyev et al. 2021) averages the boxes of one object, and what few runs found
counts less; nms keeps the best. --out leaves detections.json there, COCO's results format.
Exit code: 0 all is well, 1 some images cannot be read, 2 a mistake in what was asked.
"""
SHOWN = ("mmAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "mmAR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_names", nargs="+", metavar="RUN", help="two runs at least")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="a COCO annotation file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="where its file names start")
    parser.add_argument("--method", choices=["wbf", "nms"], default="wbf", help="how boxes become one (wbf)")
    parser.add_argument("--iou", type=float, metavar="X", help="above it two boxes are of one object (0.55; nms: 0.5)")
    add_view_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where detections.json goes")
    parser.add_argument("--json", action="store_true", help="print JSON: `members` and `together`, as of megdet eval")


def run(parsed: argparse.Namespace) -> int:
    """Score; 0, or 1 where some images cannot be read."""
    folders = [folder.path for folder in select_runs(parsed.run_names)]
    # Imported here: they bring torch.
    from megdet.trained.ensemble import score_ensemble
    from megdet.trained.views import views_of

    views = views_of(parsed.sizes, flip=parsed.flip)
    with progress("images") as advance:
        found = score_ensemble(
            folders,
            parsed.annotations,
            parsed.images,
            method=parsed.method,
            iou=parsed.iou,
            views=views,
            advance=lambda name: advance,
        )
    if parsed.out:
        _write(found, parsed.out)
    if parsed.json:
        members = [member.to_json() for member in found.members]
        print_json({"members": members, "together": found.together.to_json()})
    else:
        _print(found)
    return say_unreadable(found.together.unreadable, found.together.images)


def _print(found: Ensemble) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    for name in SHOWN:
        table.add_column(name.removeprefix("AP_"), justify="right")
    for scores in (*found.members, found.together):
        cells = [scores.metrics[name] for name in SHOWN]
        table.add_row(scores.run, *("-" if cell is None else f"{cell:.1f}" for cell in cells))
    console.print(table)
    console.print(
        "Together they are better than each alone."
        if found.beats_its_members
        else "Together they are no better than the best of them."
    )


def _write(found: Ensemble, out: Path) -> None:
    results = [
        {"image_id": int(image), "category_id": int(category), "bbox": [round(side, 2) for side in box],
         "score": round(score, 5)}
        for image, *box, score, category in found.rows.tolist()
    ]  # fmt: skip
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "detections.json").write_text(json.dumps(results))
