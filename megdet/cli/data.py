"""`megdet data check`: what a data set has, what was repaired in it, and what is wrong with its images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.data.files import DataFiles, check_files
from megdet.data.known import GENERATED
from megdet.data.settings import DataSettings
from megdet.errors import UserError, printable
from megdet.runs.as_json import print_json
from megdet.settings.counted import counted

if TYPE_CHECKING:
    from megdet.data.coco import CocoSplit
    from megdet.data.data_set import DataSet

DESCRIPTION = """\
Read a data set as training and evaluation would, and report on it:

  megdet data check data=custom data.train.annotations=train.json data.val.annotations=val.json
  megdet data check data=custom data.train.annotations=all.json data.val_fraction=0.1 --pixels
  megdet data check data.root=/data/coco

Overrides are those of `megdet launch`; with model.mask.name=head the objects' masks are read and checked too. The
headers of all images are read; --pixels decodes them too.
Exit code: 0 all is well, or was repaired; 1 some images cannot be used; 2 the data is refused.
"""
SHOWN = 10
"""Images with problems, of each split; the rest is counted."""
SMALL_AREA, MEDIUM_AREA = 32**2, 96**2
"""COCO's bounds, in pixels."""


def main(arguments: Sequence[str]) -> int:
    """Print the report; 0 fine or repaired, 1 problems in images. Raises UserError where the data is refused."""
    parser = argparse.ArgumentParser(
        prog="megdet data", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["check"], help="the one thing that can be done")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="such as data=custom data.root=FOLDER")
    parser.add_argument("--pixels", action="store_true", help="decode every image")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")
    parsed = parser.parse_intermixed_args(arguments)
    # Imported here: --help should not wait for it.
    from megdet.config.compose import compose

    config = compose(parsed.overrides)
    data, masks = config.data, config.model.reads_masks
    data.check("data.")
    if data.name in GENERATED and not Path(data.root).exists():
        raise UserError(f"data.root={data.root} is not there yet: data={data.name} is drawn when a run first needs it")
    files = check_files(data)
    found = _read(data, files, masks=masks)
    splits = {"training": found.train, "validation": found.val}
    if parsed.json:
        bad = {use: _problems(split, use, pixels=parsed.pixels) for use, split in splits.items()}
        print_json(_as_json(data, files, found, bad))
        return 1 if any(bad.values()) else 0
    _print_contents(data, files, found)
    for repair in found.facts.repairs:
        print(f"repaired or worth a look: {repair}")
    bad = {use: _problems(split, use, pixels=parsed.pixels) for use, split in splits.items()}
    for use, problems in bad.items():
        _print_problems(use, problems)
    total = sum(map(len, bad.values()))
    if not total:
        how = "decoded" if parsed.pixels else "headers read"
        print(f"all {sum(map(len, splits.values()))} images have their annotated size ({how})")
    elif total > data.max_bad_images:
        print(f"a run would stop: data.max_bad_images={data.max_bad_images}")
    return 1 if total else 0


def _as_json(
    data: DataSettings, files: DataFiles, found: DataSet, bad: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    parts = {
        "training": (found.train, files.train_annotations, files.train_images),
        "validation": (found.val, files.val_annotations, files.val_images),
    }
    return {
        "data": data.name,
        "fingerprint": found.facts.fingerprint,
        "classes": list(found.facts.class_names),
        "repairs": list(found.facts.repairs),
        "splits": {
            use: {
                "annotations": str(annotations),
                "images_in": str(images),
                "images": len(split),
                "boxes": int((~split.annotations.crowds).sum()),
                "crowd_regions": int(split.annotations.crowds.sum()),
                "boxes_by_class": _boxes_by_class(split),
                "unusable": dict(bad[use]),
            }
            for use, (split, annotations, images) in parts.items()
        },
    }


def _read(data: DataSettings, files: DataFiles, *, masks: bool) -> DataSet:
    """Read both annotation files; if both are refused, both messages are raised together."""
    from megdet.data.annotation_cache import load_annotations
    from megdet.data.data_set import check_against, read_files

    refused = []
    for path in dict.fromkeys((files.train_annotations, files.val_annotations)):
        try:
            load_annotations(path, masks=masks)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("\n".join(refused))
    # Missing images are reported, not refused.
    found = read_files(files, max_bad_images=10**12, masks=masks)
    check_against(data, files, found.facts)
    return found


def _print_contents(data: DataSettings, files: DataFiles, found: DataSet) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    classes = counted(found.facts.num_classes, "class", "classes")
    console.print(f"data={data.name}: {classes}, fingerprint {found.facts.fingerprint}")
    part = "" if files.val_fraction is None else f" (a part: data.val_fraction={files.val_fraction})"
    for use, path, images in (
        ("training", files.train_annotations, files.train_images),
        ("validation", files.val_annotations, files.val_images),
    ):
        console.print(f"  {use}: {path}{part}, images in {images}")
    table = Table("", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for use in ("training", "validation"):
        table.add_column(use, justify="right")
    columns = [_counts(split) for split in (found.train, found.val)]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    table.add_section()
    by_class = [_boxes_by_class(split) for split in (found.train, found.val)]
    for name in found.facts.class_names:
        table.add_row(printable(name), *(f"{column[name]:,}" for column in by_class))
    console.print(table)
    unseen = [name for name, count in by_class[0].items() if not count]
    if unseen:
        console.print(f"classes without a box to learn from: {printable(', '.join(unseen))}")


def _counts(split: CocoSplit) -> dict[str, str]:
    import numpy as np

    read = split.annotations
    objects = ~read.crowds
    areas = read.areas[objects]
    smallest, largest = (chosen(split.sizes, key=lambda size: size[0] * size[1]) for chosen in (min, max))
    counts = {
        "images": len(split),
        "without a box": len(split) - len(np.unique(read.owner[objects])),
        "boxes": int(objects.sum()),
        "small (area < 32 x 32)": int((areas < SMALL_AREA).sum()),
        "medium": int(((areas >= SMALL_AREA) & (areas < MEDIUM_AREA)).sum()),
        "large (area >= 96 x 96)": int((areas >= MEDIUM_AREA).sum()),
        "crowd regions": int(read.crowds.sum()),
    }
    sides = {"smallest image, width x height": smallest, "largest image, width x height": largest}
    return {name: f"{count:,}" for name, count in counts.items()} | {
        name: f"{width} x {height}" for name, (height, width) in sides.items()
    }


def _boxes_by_class(split: CocoSplit) -> dict[str, int]:
    import numpy as np

    labels = split.annotations.labels[~split.annotations.crowds]
    counts = np.bincount(labels, minlength=len(split.category_names) + 1)[1:].tolist()
    return dict(zip(split.category_names, counts, strict=True))


def _problems(split: CocoSplit, use: str, *, pixels: bool) -> dict[str, str]:
    """File name -> why the image cannot be used."""
    from rich.console import Console
    from rich.progress import track

    from megdet.data.check_images import check_headers, check_pixels

    checked: Iterator[tuple[str, str]] = (check_pixels if pixels else check_headers)(split)
    console = Console(stderr=True)
    shown = track(
        checked, f"{use} images", total=len(split), console=console, transient=True, disable=not console.is_terminal
    )
    return {name: reason for name, reason in shown if reason}


def _print_problems(use: str, problems: Mapping[str, str]) -> None:
    if not problems:
        return
    print(f"{use} images that cannot be used: {len(problems)}")
    for name, reason in list(problems.items())[:SHOWN]:
        print(f"  {printable(f'{name}: {reason}')}")
    if len(problems) > SHOWN:
        print(f"  ... and {len(problems) - SHOWN} more")
