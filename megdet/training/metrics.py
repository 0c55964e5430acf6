"""The 12 COCO numbers of a set of detections."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from megdet.runs.journal import COCO_METRICS


def coco_metrics(annotation_file: Path, detections: NDArray[np.float64]) -> dict[str, float | None]:
    """Box AP and AR of `detections` against a COCO annotation file, as pycocotools computes them.

    `detections` is float64 [n, 7]: image id, x, y, width, height (pixels of the original image), score,
    category id; n may be 0. All images of the file count, detected on or not. The values are percent;
    None where the file has nothing to measure (no large object, say; pycocotools says -1).
    """
    if detections.ndim != 2 or detections.shape[1] != 7:
        raise ValueError(f"detections must be [n, 7], not {list(detections.shape)}")
    if not np.isfinite(detections).all():
        raise ValueError("detections must be finite")
    truth = COCO(str(annotation_file))
    unknown = np.setdiff1d(detections[:, 0], truth.get_img_ids())
    if unknown.size:
        raise ValueError(f"detections on images that {annotation_file} does not list: {unknown[:5].tolist()}")
    evaluation = COCOeval(truth, truth.load_res(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() fills `stats`, and prints
        evaluation.summarize()
    return {
        name: None if value == -1 else 100 * float(value)
        for name, value in zip(COCO_METRICS, evaluation.stats, strict=True)
    }
