"""The 12 COCO numbers of a set of detections."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from megdet.data.annotations import Annotations
from megdet.runs.journal import COCO_METRICS


def coco_metrics(annotations: Annotations, detections: NDArray[np.float64]) -> dict[str, float | None]:
    """Box AP and AR of `detections` against what was read of an annotation file, as pycocotools computes them.

    `detections` is float64 [n, 7]: image id, x, y, width, height (pixels of the original image), score,
    category id; n may be 0. All images count, detected on or not. The values are percent;
    None where there is nothing to measure (no large object, say; pycocotools says -1).
    """
    if detections.ndim != 2 or detections.shape[1] != 7:
        raise ValueError(f"detections must be [n, 7], not {list(detections.shape)}")
    if not np.isfinite(detections).all():
        raise ValueError("detections must be finite")
    unknown = np.setdiff1d(detections[:, 0], annotations.image_ids)
    if unknown.size:
        raise ValueError(f"detections on images that {annotations.path} does not list: {unknown[:5].tolist()}")
    truth = _ground_truth(annotations)
    evaluation = COCOeval(truth, truth.load_res(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() fills `stats`, and prints
        evaluation.summarize()
    return {
        name: None if value == -1 else 100 * float(value)
        for name, value in zip(COCO_METRICS, evaluation.stats, strict=True)
    }


def _ground_truth(annotations: Annotations) -> COCO:
    sizes = annotations.sizes.tolist()
    return COCO.from_arrays(
        [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, name, (height, width) in zip(
                annotations.image_ids.tolist(), annotations.file_names, sizes, strict=True
            )
        ],
        [
            {"id": number, "name": name}
            for number, name in zip(annotations.category_ids.tolist(), annotations.category_names, strict=True)
        ],
        annotations.image_ids[annotations.owner],
        annotations.category_ids[annotations.labels - 1],
        annotations.boxes,
        area=annotations.areas,
        iscrowd=annotations.crowds.astype(np.int64),
    )
