"""The boxes of an annotation file, checked against the sizes of their images."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet.data.entries import Entries, number, shown
from megdet.errors import UserError

MIN_SIDE_PX = 0.01
"""Thinner boxes count as empty: their log-encoded regression targets have no meaning."""
ROUNDING_PX = 1.0
"""A box may reach so far beyond its image without a word: files round differently (COCO 2017 has thousands)."""
MAX_REPAIRED = 0.1
"""The share of boxes that may be cut or left out; beyond it boxes and sizes do not belong together."""
FEW = 5
"""So many are repaired whatever their share."""

_FORMAT = "bbox is [x, y, width, height] in pixels, from the top left corner of the image"


def read_boxes(annotations: Entries) -> NDArray[np.float64]:
    """float64 [m, 4] as written: x, y, width, height. Raises UserError for what is not four finite numbers."""
    values = annotations.column("bbox")
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {int, float}:
            try:
                boxes = np.array(flat, dtype=np.float64).reshape(-1, 4)
            except OverflowError:  # an int beyond float64
                pass
            else:
                if np.isfinite(boxes).all():
                    return boxes
    read = annotations.read_each("bbox", _box, f"{_FORMAT}: four numbers")
    texts = [index for index, value in enumerate(values) if any(type(side) is str for side in value)]
    annotations.repaired(texts, "boxes with numbers written as text, read as numbers", values)
    return np.array(read, dtype=np.float64).reshape(-1, 4)


def _box(value: Any) -> list[float]:
    if type(value) is not list:
        raise ValueError("not a list of four numbers")
    if len(value) != 4:
        raise ValueError(f"{len(value)} values instead of four")
    return [number(side) for side in value]


def fit_boxes(
    annotations: Entries, boxes: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The boxes with those cut that reach beyond their images, float64 [m, 4], and which of them are not empty.

    `sizes` is int64 [m, 2]: height and width of each box's image. Raises UserError for negative sides, for boxes
    that are fractions of their image, and where too many would have to be cut or left out.
    """
    negative = np.flatnonzero((boxes[:, 2:] <= -MIN_SIDE_PX).any(axis=1))
    if negative.size:
        box = boxes[negative[0]].tolist()
        annotations.refuse(negative, f"has bbox {shown(box)}, of negative width or height", f"{_FORMAT}.")
    extent = sizes[:, ::-1].astype(np.float64)
    with np.errstate(over="ignore"):  # a sum beyond float64 is infinite, and cut like any other
        corner = boxes[:, :2] + boxes[:, 2:]
    top_left, bottom_right = np.clip(boxes[:, :2], 0, extent), np.clip(corner, 0, extent)
    kept = (bottom_right - top_left).min(axis=1, initial=np.inf) >= MIN_SIDE_PX
    beyond = kept & ((boxes[:, :2] < -ROUNDING_PX) | (corner > extent + ROUNDING_PX)).any(axis=1)
    if kept.any() and corner[kept].max() <= 1:
        raise UserError(
            f"{annotations.path}: every box lies in the first pixel of its image, as if bbox were in fractions of "
            f"the image. {_FORMAT}: multiply by the image's width and height."
        )
    altered = np.flatnonzero(beyond | ~kept)
    if altered.size > max(FEW, MAX_REPAIRED * len(boxes)) or (altered.size and not kept.any()):
        first = int(altered[0])
        height, width = sizes[first].tolist()
        fault = f"has bbox {shown(boxes[first].tolist())} in an image of {width} x {height} pixels (width x height)"
        way_out = (
            f"That is {altered.size} of {len(boxes)} boxes that are empty or reach beyond their images: "
            f"too many to be slips. {_FORMAT}; are some [x1, y1, x2, y2], or are width and height of images exchanged?"
        )
        annotations.refuse(altered, fault, way_out)
    annotations.repaired(np.flatnonzero(beyond), "boxes that reach beyond their images, cut", boxes)
    annotations.repaired(np.flatnonzero(~kept), "boxes that are empty or outside their images, left out", boxes)
    cut: NDArray[np.float64] = np.hstack([top_left, bottom_right - top_left])
    return np.where(beyond[:, None], cut, boxes), kept
