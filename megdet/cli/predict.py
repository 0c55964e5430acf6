"""`megdet predict`: what a trained run's detector finds in images."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.cli.runs import select_run
from megdet.cli.show_progress import progress
from megdet.cli.views import add_view_arguments
from megdet.errors import ExitCode, UserError
from megdet.settings.counted import counted
from megdet.settings.paths import writing_to

if TYPE_CHECKING:
    from megdet.trained.images import AskedImages
    from megdet.trained.predictions import Predictions

SUMMARY = "find objects in a folder of images with a trained run"
HELP = """\
Find objects in images with the detector of a trained run. The training data is not needed. Leaves in --out:

  detections.json   COCO's results format: image_id, category_id, bbox, score
  masks.json        the same of masks, where the run has them: segmentation in place of bbox
  images.json       which image has which id, and the classes; COCO's format too
  pictures/         the first images with what was found in them

  megdet predict b16-bn16 holiday-pictures
  megdet predict b16-bn16 test2017 --annotations annotations/image_info_test-dev2017.json --pictures 0

Image ids are those of --annotations; else the number that each file's name is (000000000139.jpg); else 1, 2, 3, ...
Exit code: 0 all is well, 1 some images cannot be read, 2 a mistake in what was asked.
"""
DETECTIONS, MASKS, IMAGES = "detections.json", "masks.json", "images.json"
PICTURES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="one run")
    parser.add_argument("images", type=Path, metavar="FOLDER", help="of images (folders in it count too), or one image")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where results go (predictions/RUN)")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="lists the images and their ids, as COCO's do")
    parser.add_argument("--pictures", type=_count, default=PICTURES, metavar="N", help=f"pictures to draw ({PICTURES})")
    add_view_arguments(parser)
    parser.add_argument(
        "--score", type=float, metavar="S",
        help="leave out what the detector is less sure of (results: eval.score_threshold of the run; pictures: 0.5)",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: write how many, 0 or more")
    return int(text)


def run(parsed: argparse.Namespace) -> int:
    """Predict; 0, or 1 where some images cannot be read."""
    folder = select_run(parsed.run_name)
    out: Path = parsed.out or Path("predictions") / folder.name
    # Imported here: they bring torch.
    from megdet.trained.images import images_at, images_listed
    from megdet.trained.predictions import detect_in
    from megdet.trained.run import TrainedRun
    from megdet.trained.views import views_of

    views = views_of(parsed.sizes, flip=parsed.flip)
    trained = TrainedRun(folder.path)
    if not parsed.images.exists():
        raise UserError(f"{parsed.images} does not exist; name a folder of images, or one image")
    asked = images_listed(parsed.images, parsed.annotations) if parsed.annotations else images_at(parsed.images)
    with writing_to(out):
        _check_out(out, asked)
    with progress("images") as advance:
        found = detect_in(trained, asked, score=parsed.score, views=views, advance=advance)
    with writing_to(out):
        _write(found, out, pictures=parsed.pictures, score=parsed.score)
    boxes = sum(map(len, found))
    print(f"{counted(len(found), 'image')}, {counted(boxes, 'box', 'boxes')}: {out / DETECTIONS}")
    if found.have_masks:
        print(f"their masks: {out / MASKS}")
    elif trained.has_masks and boxes:
        print("no masks: boxes of several views are fused, and a mask is that of one box in one view")
    if parsed.pictures and len(found):
        print(f"pictures: {out / 'pictures'}")
    return say_unreadable(found.unreadable, len(found) + len(found.unreadable))


def say_unreadable(unreadable: Mapping[str, str], images: int) -> ExitCode:
    """One line on all images that cannot be read, and the exit code for it."""
    if not unreadable:
        return ExitCode.OK
    name, reason = next(iter(unreadable.items()))
    print(f"{len(unreadable)} of {images} images cannot be read; the first is {name}: {reason}", file=sys.stderr)
    return ExitCode.RUN_FAILED


def _write(found: Predictions, out: Path, *, pictures: int, score: float | None) -> None:
    from megdet.training.drawing import save_picture  # numpy and Pillow

    (out / DETECTIONS).write_text(json.dumps(found.to_coco()))
    if found.have_masks:
        (out / MASKS).write_text(json.dumps(found.masks_to_coco()))
    (out / IMAGES).write_text(json.dumps(found.to_image_list()))
    for image in found[:pictures]:
        picture = image.picture() if score is None else image.picture(min_score=score)
        # Whole names: a.jpg and a.png may both be there.
        save_picture(picture, out / "pictures" / f"{image.name}.png")


def _check_out(out: Path, asked: AskedImages) -> None:
    """Make the folder of the results. Raises UserError where it has those of other images; OSError."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out) as file:
        file.write(b"x")
    try:
        before = {image["file_name"] for image in json.loads((out / IMAGES).read_text())["images"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    if others := sorted(before - {*asked.listed.file_names, *asked.unreadable}):
        raise UserError(
            f"--out {out}: has what was found in other images ({len(others)}, such as {others[0]}); name another "
            "folder, or remove this one"
        )
