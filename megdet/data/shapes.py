"""`data=shapes`: six classes of drawn shapes of any colour, size (COCO's small, medium and large) and rotation.

On textured grounds; with occlusion, crowd regions, images without objects, both orientations, and among the training
images the odd kinds of JPEG that COCO has: grey, CMYK, EXIF-rotated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet.data.generated import Mask, PaintedObject, Painting, Pixels

SUPERCATEGORY = "shape"

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
CATEGORIES = tuple((shape.category_id, shape.name) for shape in _SHAPES)


def paint(rng: np.random.Generator, image_size: int, *, training: bool) -> Painting:
    """An image whose short side has `image_size` pixels, and the long one up to 1.5 times that."""
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
            seen.append(PaintedObject(visible, shape.category_id, is_crowd))
    return Painting(np.clip(pixels, 0, 255), seen, odd_files=True)


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
