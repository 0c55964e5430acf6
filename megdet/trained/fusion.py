"""What several detectors, or several views of one image, find there, made one: weighted box fusion, or NMS.

Rows are COCO's, as `megdet.training.evaluate.detect` has them: float64 [n, 7] of image id, x, y, width, height, score
and category id. Boxes are fused within one image and category.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

WBF_IOU = 0.55
"""From Solovyev et al. 2021, section 3."""
NMS_IOU = 0.5


def fuse(sources: Sequence[Rows], *, method: str = "wbf", iou: float | None = None, most: int) -> Rows:
    """The rows of all sources made one set, at most `most` of an image, best first in each.

    `method` is one of METHODS; `iou` is that above which two boxes are of one object (None: the method's own).
    """
    fusion, usual = METHODS[method]
    rows = np.concatenate(list(sources))
    parts = [fusion(group, len(sources), usual if iou is None else iou) for group in _groups(rows)]
    fused = np.concatenate([rows[:0], *parts])
    fused = fused[np.lexsort((-fused[:, 5], fused[:, 0]))]
    place_in_image = np.arange(len(fused)) - np.searchsorted(fused[:, 0], fused[:, 0])
    return fused[place_in_image < most]


def weighted_box_fusion(rows: Rows, sources: int, iou: float) -> Rows:
    """Clusters of boxes as their means weighted by score (Solovyev et al. 2021), of one image and category.

    Best first, a box joins the cluster whose mean it overlaps most, by more than `iou`, or begins one. A cluster's
    score is the mean of its boxes', times the share of `sources` that found it: what few found counts less.
    """
    rows = rows[(rows[:, 3:6] > 0).all(axis=1)]
    rows = rows[np.argsort(-rows[:, 5], kind="stable")]
    corners = np.concatenate((rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]), axis=1)
    means = np.zeros((0, 4))
    members: list[list[int]] = []
    for place, box in enumerate(corners):
        overlaps = _iou(means, box)
        nearest = int(overlaps.argmax()) if len(overlaps) else -1
        if nearest >= 0 and overlaps[nearest] > iou:
            members[nearest].append(place)
            own = members[nearest]
            means[nearest] = np.average(corners[own], axis=0, weights=rows[own, 5])
        else:
            members.append([place])
            means = np.concatenate((means, box[None]))
    if not members:
        return rows
    scores = [rows[own, 5].mean() * min(sources, len(own)) / sources for own in members]
    image, category = rows[: len(members), 0], rows[: len(members), 6]
    return np.column_stack((image, means[:, :2], means[:, 2:] - means[:, :2], scores, category))


def suppressed(rows: Rows, sources: int, iou: float) -> Rows:
    """Non-maximum suppression: the boxes of one image and category that overlap none better by more than `iou`.

    How many `sources` there are makes no difference.
    """
    rows = rows[np.argsort(-rows[:, 5], kind="stable")]
    corners = np.concatenate((rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]), axis=1)
    left = np.ones(len(rows), dtype=bool)
    for place, box in enumerate(corners):
        if left[place]:
            left[place + 1 :] &= _iou(corners[place + 1 :], box) <= iou
    return rows[left]


METHODS: dict[str, tuple[Callable[[Rows, int, float], Rows], float]] = {
    "wbf": (weighted_box_fusion, WBF_IOU),
    "nms": (suppressed, NMS_IOU),
}
"""Each with its usual IoU."""


def _iou(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n] of boxes [n, 4] with a box [4], as (x1, y1, x2, y2); 0 where both are empty."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    found: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def _groups(rows: Rows) -> list[Rows]:
    """The rows of each image and category, in their order."""
    rows = rows[np.lexsort((rows[:, 6], rows[:, 0]))]
    changes = (np.diff(rows[:, (0, 6)], axis=0) != 0).any(axis=1).nonzero()[0] + 1
    return np.split(rows, changes) if len(rows) else []
