"""Generated detection data sets in COCO's own format: real JPEGs, real instances_*.json, no download.

A painter draws one image after the other; what is here numbers, annotates and stores them. The same seed gives the
same set, and each image depends on the seed, its split and its own number alone.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet.data.files import coco_files
from megdet.data.known import GENERATED
from megdet.errors import UserError

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]

_ORIENTATION = 0x0112  # the EXIF tag
# How a viewer must turn the stored pixels (EXIF 2.32, 4.6.4), and the turn that stores them so.
_STORED_TURN = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class PaintedObject:
    """What is annotated in an image."""

    mask: Mask
    """[h, w]: the pixels that are seen of it."""
    category_id: int
    is_crowd: bool = False


@dataclass(frozen=True)
class Painting:
    """One image."""

    pixels: Pixels
    """[h, w, 3] in 0..255."""
    objects: Sequence[PaintedObject]
    jpeg_quality: int = 92
    odd_files: bool = False
    """Whether some training images are stored as COCO has them too: grey, CMYK, turned with EXIF."""


class Painter(Protocol):
    """What draws a set: a module of this package, named in `GENERATED`."""

    CATEGORIES: Sequence[tuple[int, str]]
    """Id and name."""
    SUPERCATEGORY: str

    @staticmethod
    def paint(rng: np.random.Generator, image_size: int, *, training: bool) -> Painting:
        """An image whose short side has `image_size` pixels."""


def painter_of(name: str) -> Painter:
    """The painter of a set in `GENERATED`."""
    painter: Any = importlib.import_module(f"megdet.data.{name}")
    return painter  # type: ignore[no-any-return]


def categories_of(painter: Painter) -> list[dict[str, Any]]:
    """As an annotation file has them."""
    return [{"id": id, "name": name, "supercategory": painter.SUPERCATEGORY} for id, name in painter.CATEGORIES]


def generate(name: str, root: Path, *, train_images: int, val_images: int, image_size: int, seed: int) -> None:
    """Make the set below `root`, in the folder layout of COCO 2017; nothing if it is there already.

    `image_size` is the short side in pixels, LEAST_SIZE or more. The folder appears whole or not at all. Raises
    UserError if `root` holds anything else, another generated set included, if it cannot be written, or if a package
    that the set is made of is missing.
    """
    settings = {
        "format": GENERATED[name],
        "train_images": train_images,
        "val_images": val_images,
        "image_size": image_size,
        "seed": seed,
    }
    painter, root = painter_of(name), Path(root)
    try:
        if not _is_there(name, root, settings):
            _make(name, painter, root, settings)
    except OSError as error:
        raise UserError(
            f"data.root={root}: {name} cannot be written there ({error.strerror or error}); make room or mend its "
            "rights, or choose another data.root"
        ) from error


def _make(name: str, painter: Painter, root: Path, settings: Mapping[str, int]) -> None:
    counts = [settings["train_images"], settings["val_images"]]
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = root.parent / f".{root.name}-{uuid.uuid4().hex[:12]}"
    try:
        files = coco_files(folder)
        files.train_annotations.parent.mkdir(parents=True)
        advance = _Progress(f"generating {root}", sum(counts)).advance
        size, seed, categories = settings["image_size"], settings["seed"], categories_of(painter)
        places = ((files.train_images, files.train_annotations), (files.val_images, files.val_annotations))
        for split, ((images, annotations), count) in enumerate(zip(places, counts, strict=True)):
            paint = partial(painter.paint, training=split == 0)
            content = write_split(
                paint, images, count, size, categories=categories, seed=seed, split=split, advance=advance
            )
            info = {"description": f"generated {name}", "seed": seed}
            annotations.write_text(json.dumps({"info": info, **content}))
        (folder / _marker(name)).write_text(json.dumps(settings))
        try:
            os.replace(folder, root)
        except OSError:
            # Somebody else was faster; _is_there says if theirs is the set that was asked for.
            if not _is_there(name, root, settings):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _marker(name: str) -> str:
    return f"{name}.json"


def _is_there(name: str, root: Path, settings: Mapping[str, int]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    way_out = f"choose another data.root, or remove {root}"
    try:
        found = json.loads((root / _marker(name)).read_text())
    except (OSError, ValueError) as error:
        what = f"not by generated {name} (no {_marker(name)})"
        raise UserError(f"data.root={root} is in use, and {what}; {way_out}") from error
    if found != settings:
        differ = [f"{k}={found.get(k)} (asked: {v})" for k, v in settings.items() if found.get(k) != v]
        raise UserError(f"data.root={root} holds {name} with {', '.join(differ)}; {way_out}")
    return True


def write_split(
    paint: Callable[[np.random.Generator, int], Painting],
    folder: Path,
    count: int,
    image_size: int,
    *,
    categories: Sequence[dict[str, Any]],
    seed: int,
    split: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Draw the images of split 0 (training) or 1 (validation) into a new folder; the content of an annotation file."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, split, index])
        image_id = 2 * index + 1 + split  # with gaps, and no id in both splits
        file_name = f"{image_id:012d}.jpg"
        painting = paint(rng, image_size)
        kind = index % 40 if painting.odd_files and split == 0 else 0
        _save(painting, folder / file_name, kind=kind)
        height, width = painting.pixels.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for one in painting.objects:
            annotations.append(
                {
                    "id": 2 * len(annotations) + 1 + split,
                    "image_id": image_id,
                    "category_id": one.category_id,
                    "iscrowd": int(one.is_crowd),
                    "bbox": _bounding_box(one.mask),
                    "area": int(one.mask.sum()),
                    "segmentation": {"size": [height, width], "counts": _run_lengths(one.mask)},
                }
            )
        advance()
    return {"licenses": [], "images": images, "annotations": annotations, "categories": list(categories)}


def _bounding_box(mask: Mask) -> list[int]:
    """The tight box (x, y, width, height) around a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    ]


def _run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs of 0, 1, 0, … down the columns, the first run of zeros."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def _save(painting: Painting, path: Path, *, kind: int) -> None:
    """Write a JPEG; of 40 training images one is grey, one CMYK, and three are stored turned, with EXIF."""
    picture = Image.fromarray(painting.pixels.round().astype(np.uint8))
    exif = Image.Exif()
    if kind == 7:
        picture = picture.convert("L")
    elif kind == 17:
        picture = picture.convert("CMYK")
    elif kind in (23, 26, 28):
        orientation = kind - 20
        exif[_ORIENTATION] = orientation
        picture = picture.transpose(_STORED_TURN[orientation])
    picture.save(path, quality=painting.jpeg_quality, exif=exif)


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.shown = sys.stderr.isatty()

    def advance(self) -> None:
        self.done += 1
        if self.shown and (self.done % 16 == 0 or self.done == self.total):
            bar = "#" * (30 * self.done // self.total)
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.what} [{bar:<30}] {self.done}/{self.total}", end=end, file=sys.stderr, flush=True)
