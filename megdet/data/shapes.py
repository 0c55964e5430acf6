"""A generated detection data set in COCO's own format: real JPEGs, real instances_*.json, no download.

Six classes of shapes of any colour, size (COCO's small, medium and large) and rotation, on textured
grounds; occlusion, crowd regions, images without objects, both orientations, and among the training images
the odd kinds of JPEG that COCO has: grey, CMYK, EXIF-rotated. The same seed gives the same set.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet.data.files import coco_files
from megdet.data.known import SHAPES_VERSION
from megdet.errors import UserError

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]

MARKER = "shapes.json"
_ORIENTATION = 0x0112  # the EXIF tag
# How a viewer must turn the stored pixels (EXIF 2.32, 4.6.4), and the turn that stores them so.
_STORED_TURN = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Square root of the area in pixels, how often. COCO: small < 32^2 <= medium < 96^2 <= large.
_SIDES_PX = (((16.0, 31.0), 0.35), ((33.0, 70.0), 0.5), ((102.0, 120.0), 0.15))
_MAX_HIDDEN = 0.7
"Objects of which more is hidden are not annotated."
_MAX_OVERLAP = 0.3
"A shape that would cover others with more of its area is placed elsewhere, if a few tries find a place."


@dataclass(frozen=True)
class _Shape:
    category_id: int
    name: str
    inside: Callable[[NDArray[np.float64], NDArray[np.float64]], Mask]
    """Which points (x, y) belong to the shape; it lies in the unit disc."""
    unit_area: float


def _star(x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
    wedge = np.abs((np.arctan2(y, x) % (2 * math.pi / 5)) - math.pi / 5)  # 0 at a notch, pi/5 at a tip
    tip, notch = (math.cos(math.pi / 5), math.sin(math.pi / 5)), (0.5, 0.0)
    radius = np.hypot(x, y)
    across = (radius * np.cos(wedge) - notch[0]) * (tip[1] - notch[1])
    along = (radius * np.sin(wedge) - notch[1]) * (tip[0] - notch[0])
    inside: Mask = across <= along
    return inside


_SHAPES = (  # ids with gaps, as in COCO
    _Shape(1, "circle", lambda x, y: np.hypot(x, y) <= 1, math.pi),
    _Shape(2, "square", lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= math.sqrt(0.5), 2.0),
    _Shape(
        3,
        "triangle",
        lambda x, y: (y <= 0.5) & (np.abs(x) * math.sqrt(3) <= y + 1),
        0.75 * math.sqrt(3),
    ),
    _Shape(
        5,
        "cross",
        lambda x, y: (np.minimum(np.abs(x), np.abs(y)) <= 0.3) & (np.maximum(np.abs(x), np.abs(y)) <= 0.95),
        4 * 0.3 * (2 * 0.95 - 0.3),
    ),
    _Shape(8, "ring", lambda x, y: np.abs(np.hypot(x, y) - 0.78) <= 0.22, math.pi * (1 - 0.56**2)),
    _Shape(13, "star", _star, 5 * 0.5 * math.sin(math.pi / 5)),
)


def generate_shapes(root: Path, *, train_images: int, val_images: int, image_size: int, seed: int) -> None:
    """Make the set below `root`, in the folder layout of COCO 2017; nothing if it is there already.

    `image_size` is the short side in pixels, the long one is up to 1.5 times that. The folder appears whole
    or not at all. Raises UserError if `root` holds anything else, another set of shapes included.
    """
    settings = {
        "format": SHAPES_VERSION,
        "train_images": train_images,
        "val_images": val_images,
        "image_size": image_size,
        "seed": seed,
    }
    if train_images < 1 or val_images < 1 or image_size < 48:
        raise UserError(
            f"data.train_images={train_images}, data.val_images={val_images}, image_size={image_size}: "
            "shapes needs at least one image of each and an image_size of 48 pixels or more"
        )
    root = Path(root)
    if _is_there(root, settings):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = root.parent / f".{root.name}-{uuid.uuid4().hex[:12]}"
    try:
        files = coco_files(folder)
        files.train_annotations.parent.mkdir(parents=True)
        progress = _Progress(f"generating {root}", train_images + val_images)
        for split, (images, annotations, count) in enumerate(
            (
                (files.train_images, files.train_annotations, train_images),
                (files.val_images, files.val_annotations, val_images),
            )
        ):
            images.mkdir()
            content = _write_split(images, count, image_size, seed, split, progress)
            annotations.write_text(json.dumps(content))
        (folder / MARKER).write_text(json.dumps(settings))
        try:
            os.replace(folder, root)
        except OSError:
            # Somebody else was faster; _is_there says if theirs is the set that was asked for.
            if not _is_there(root, settings):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_there(root: Path, settings: dict[str, int]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    way_out = f"choose another data.root, or remove {root}"
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"data.root={root} is in use, and not by a generated set (no {MARKER}); {way_out}") from error
    if found != settings:
        differ = [f"{k}={found.get(k)} (asked: {v})" for k, v in settings.items() if found.get(k) != v]
        raise UserError(f"data.root={root} holds shapes with {', '.join(differ)}; {way_out}")
    return True


def _write_split(
    folder: Path, count: int, image_size: int, seed: int, split: int, progress: _Progress
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([seed, split, index])
        image_id = 2 * index + 1 + split  # with gaps, and no id in both splits
        file_name = f"{image_id:012d}.jpg"
        pixels, objects = _paint(rng, image_size)
        _save(pixels, folder / file_name, kind=index % 40 if split == 0 else 0)
        height, width = pixels.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for mask, shape, is_crowd in objects:
            annotations.append(
                {
                    "id": 2 * len(annotations) + 1 + split,
                    "image_id": image_id,
                    "category_id": shape.category_id,
                    "iscrowd": int(is_crowd),
                    "bbox": _bounding_box(mask),
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": _run_lengths(mask)},
                }
            )
        progress.advance()
    return {
        "info": {"description": "generated shapes", "seed": seed},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": s.category_id, "name": s.name, "supercategory": "shape"} for s in _SHAPES],
    }


def _paint(rng: np.random.Generator, image_size: int) -> tuple[Pixels, list[tuple[Mask, _Shape, bool]]]:
    """One image, float [h, w, 3] in 0..255, and the visible masks of what is annotated in it."""
    long_side = int(image_size * rng.uniform(1.0, 1.5))
    height, width = (image_size, long_side) if rng.random() < 0.6 else (long_side, image_size)
    pixels = _ground(rng, height, width)
    owner = np.full((height, width), -1)
    painted: list[tuple[Mask, _Shape, bool]] = []

    if rng.random() < 0.08:
        painted.append(_paint_crowd(rng, pixels))
        owner[painted[0][0]] = 0
    count = 0 if rng.random() < 0.06 else int(rng.integers(1, 6))
    spans = sorted(rng.choice(len(_SIDES_PX), size=count, p=[share for _, share in _SIDES_PX]), reverse=True)
    for position, span in enumerate(spans):  # the smaller cover the larger
        if span == 2 and position > 0:
            span = 0  # two large ones would hide each other
        mask, shape = _place(rng, owner >= 0, rng.uniform(*_SIDES_PX[span][0]))
        _fill(rng, pixels, mask)
        owner[mask] = len(painted)
        painted.append((mask, shape, False))

    seen = []
    for number, (mask, shape, is_crowd) in enumerate(painted):
        visible: Mask = owner == number
        if visible.sum() > (1 - _MAX_HIDDEN) * mask.sum():
            seen.append((visible, shape, is_crowd))
    return np.clip(pixels, 0, 255), seen


def _place(rng: np.random.Generator, taken: Mask, side_px: float) -> tuple[Mask, _Shape]:
    """A shape whose area is side_px^2, or what fits into the image; up to a tenth of it may stick out."""
    height, width = taken.shape
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    radius = min(side_px / math.sqrt(shape.unit_area), 0.58 * min(height, width))
    angle = rng.uniform(0, 2 * math.pi)
    for _ in range(8):
        cy, cx = (
            rng.uniform(0.85 * radius, side - 0.85 * radius) if side > 1.7 * radius else side / 2
            for side in (height, width)
        )
        mask = _mask(shape, height, width, cy, cx, radius, angle)
        if (mask & taken).sum() <= _MAX_OVERLAP * mask.sum():
            break
    return mask, shape


def _mask(shape: _Shape, height: int, width: int, cy: float, cx: float, radius: float, angle: float) -> Mask:
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = (y - cy) / radius, (x - cx) / radius
    cos, sin = math.cos(angle), math.sin(angle)
    return shape.inside(cos * x + sin * y, cos * y - sin * x)


def _paint_crowd(rng: np.random.Generator, pixels: Pixels) -> tuple[Mask, _Shape, bool]:
    """A tight cluster of many tiny shapes of one class, annotated as one region."""
    height, width = pixels.shape[:2]
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    spread = min(height, width) / 8
    centre = rng.uniform([2 * spread] * 2, [height - 2 * spread, width - 2 * spread])
    region = np.zeros((height, width), dtype=bool)
    for _ in range(int(rng.integers(15, 30))):
        cy, cx = np.clip(rng.normal(centre, spread * 0.6), 4, [height - 4, width - 4])
        mask = _mask(shape, height, width, cy, cx, rng.uniform(3, 6), rng.uniform(0, 2 * math.pi))
        _fill(rng, pixels, mask)
        region |= mask
    return region, shape, True


def _ground(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A gradient between two colours, with coarse and fine noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = (y / height - 0.5) * math.sin(angle) + (x / width - 0.5) * math.cos(angle) + 0.5
    first, second = rng.uniform(20, 235, size=(2, 1, 1, 3)).astype(np.float32)
    coarse = rng.normal(0, 14, size=(max(2, height // 24), max(2, width // 24), 3)).astype(np.float32)
    blobs = [
        np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), Image.Resampling.BICUBIC)) for c in range(3)
    ]
    fine = rng.normal(0, 7, size=(height, width, 3)).astype(np.float32)
    ground: Pixels = first + (second - first) * along[..., None] + np.stack(blobs, axis=-1) + fine
    return ground


def _fill(rng: np.random.Generator, pixels: Pixels, mask: Mask) -> None:
    """Paint the mask in any colour that stands out from what it covers, also in grey; with its own gradient."""
    if not mask.any():
        return
    behind = float((pixels[mask] @ _LUMA).mean())
    colour = rng.uniform(0, 255, size=3)
    while abs(float(colour @ _LUMA) - behind) < 55:
        colour = rng.uniform(0, 255, size=3)
    rows, columns = np.nonzero(mask)
    slope = rng.uniform(-18, 18, size=2)
    shade = slope[0] * (rows / rows.max() - 0.5) + slope[1] * (columns / max(columns.max(), 1) - 0.5)
    pixels[mask] = colour + shade[:, None] + rng.normal(0, 6, size=(len(rows), 3))


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


def _save(pixels: Pixels, path: Path, *, kind: int) -> None:
    """Write a JPEG; of 40 training images one is grey, one CMYK, and three are stored turned, with EXIF."""
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    exif = Image.Exif()
    if kind == 7:
        picture = picture.convert("L")
    elif kind == 17:
        picture = picture.convert("CMYK")
    elif kind in (23, 26, 28):
        orientation = kind - 20
        exif[_ORIENTATION] = orientation
        picture = picture.transpose(_STORED_TURN[orientation])
    picture.save(path, quality=92, exif=exif)


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
