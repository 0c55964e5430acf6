"""The masks of an annotation file: polygons, run lengths (RLE) as lists, and COCO's compressed RLE.

All become compressed RLE, by the rules of pycocotools' `annToRLE`: an object's polygons are one mask together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from hotcoco import mask as rle
from numpy.typing import NDArray

from megdet.data.annotation_json import MISSING
from megdet.data.boxes import FEW, MAX_REPAIRED
from megdet.data.entries import Entries, shown
from megdet.data.masks import Masks
from megdet.errors import UserError

WAY_OUT = (
    "A segmentation is a list of polygons [x1, y1, x2, y2, ...] of at least three points in pixels, or RLE of the size "
    "of the image: correct it, or train on boxes alone (model.mask.name=null, model.segmentation.targets=boxes)"
)


_NOTHING = (b"null", b"[]", b"{}", b'""')


class NoMasks(UserError):
    """The file has boxes alone."""


def read_segmentations(annotations: Entries, sizes: NDArray[np.int64]) -> Masks:
    """The masks of all annotations; `sizes` is int64 [m, 2]: height and width of each one's image.

    Raises:
        NoMasks: where no annotation has a segmentation.
        UserError: on those that are missing or not what they should be, or where too many have no pixel.
    """
    written = annotations.column("segmentation")
    absent = [index for index, raw in enumerate(written) if raw is MISSING or bytes(raw).strip() in _NOTHING]
    if len(absent) == len(written):
        raise NoMasks(f"{annotations.path}: no annotation has a segmentation, and masks are to be learned. {WAY_OUT}")
    if absent:
        annotations.refuse(absent, "has no segmentation", f"{WAY_OUT}.")
    read: list[dict[str, Any]] = []
    bad, why = [], ""
    for index, (raw, size) in enumerate(zip(written, sizes.tolist(), strict=True)):
        try:
            read.append(_rle(_value(raw), *size))  # one at a time: COCO's are millions of numbers
        except ValueError as error:
            why = why or f"{_shown(raw)}: {error}"
            bad.append(index)
    if bad:
        annotations.refuse(bad, f"has segmentation {why}", f"{WAY_OUT}.")
    empty = np.flatnonzero(np.asarray(rle.area(read)) == 0)
    if empty.size > max(FEW, MAX_REPAIRED * len(read)):
        annotations.refuse(
            empty,
            f"has a segmentation without a pixel: {_shown(written[empty[0]])}",
            f"That is {empty.size} of {len(read)}, too many to be slips: are points in fractions of the image? "
            f"{WAY_OUT}.",
        )
    annotations.repaired(empty, "masks without a pixel, read as such")
    return Masks.of(one["counts"] for one in read)


def _value(raw: msgspec.Raw) -> Any:
    """The JSON of one segmentation. Raises ValueError."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise ValueError("lists in lists in lists") from None


def _shown(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode(errors="replace")
    return text if len(text) <= 60 else text[:57] + "..."


def _rle(value: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE. Raises ValueError with what is wrong."""
    if type(value) is list:
        for polygon in value:
            _check_polygon(polygon, height, width)
        parts = rle.frPyObjects(value, height, width)
        return rle.merge(parts)
    if type(value) is not dict:
        raise ValueError("neither a list of polygons nor an object with size and counts")
    if value.get("size") != [height, width]:
        raise ValueError(f"size {shown(value.get('size', MISSING))}, and the image has [height, width] = "
                         f"[{height}, {width}]")  # fmt: skip
    counts = value.get("counts")
    runs = _runs_in(counts) if type(counts) is str else counts
    if type(runs) is not list or not set(map(type, runs)) <= {int} or any(run < 0 for run in runs):
        raise ValueError("counts are neither whole numbers from 0 on nor COCO's compressed text")
    if sum(runs) != height * width:
        raise ValueError(f"counts cover {sum(runs)} pixels, and the image has {height} x {width} = {height * width}")
    return rle.frPyObjects({"size": [height, width], "counts": _joined(runs)}, height, width)


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    if type(polygon) is not list or not set(map(type, polygon)) <= {int, float}:
        raise ValueError("a polygon is a list of numbers")
    if len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} numbers, an odd one: a point has an x and a y")
    if len(polygon) < 6:
        raise ValueError(f"a polygon of {len(polygon) // 2} points")
    # Twice the image is far from any rounding, and drawing takes memory by the length of the edges.
    for side, name, values in ((width, "x", polygon[::2]), (height, "y", polygon[1::2])):
        if not -side <= min(values) <= max(values) <= 2 * side:
            furthest = max(values, key=lambda value: abs(value - side / 2))
            raise ValueError(f"a point at {name} = {furthest:g}, and the image has {width} x {height} pixels")


def _runs_in(text: str) -> list[int]:
    """The run lengths in COCO's compressed text (pycocotools' `rleFrString`): five bits a character, from the least.

    From the fourth run on, a number is the difference to the run two before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{shown(character)} is no part of compressed counts")
        number |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("compressed counts end within a number")
    return runs


def _joined(runs: Sequence[int]) -> list[int]:
    """The same pixels without runs of no length, but for a first one: equal masks become equal texts."""
    joined = [0]
    of_ones = False
    for number, run in enumerate(runs):
        if not run:
            continue
        if of_ones != bool(number % 2):
            of_ones = not of_ones
            joined.append(0)
        joined[-1] += run
    return joined
