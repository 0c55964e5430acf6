"""The 12 COCO numbers of a set of detections."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from hotcoco import COCO, COCOeval
from numpy.typing import NDArray

from megdet.data.annotations import Annotations
from megdet.runs.journal import COCO_METRICS

SIZES = ("small", "medium", "large")


def coco_metrics(annotations: Annotations, detections: NDArray[np.float64]) -> dict[str, float | None]:
    """Box AP and AR of `detections` against what was read of an annotation file, as pycocotools computes them.

    `detections` is float64 [n, 7]: image id, x, y, width, height (pixels of the original image), score,
    category id; n may be 0. All images count, detected on or not. The values are percent;
    None where there is nothing to measure (no large object, say; pycocotools says -1).
    """
    evaluation = _accumulated(annotations, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() fills `stats`, and prints
        evaluation.summarize()
    return {
        name: None if value == -1 else 100 * float(value)
        for name, value in zip(COCO_METRICS, evaluation.stats, strict=True)
    }


def coco_metrics_by_class(
    annotations: Annotations, detections: NDArray[np.float64]
) -> dict[str, dict[str, float | None]]:
    """By class name the same numbers as `coco_metrics`, of that class alone, as far as they are about 100 detections.

    Each is the mean over IoU thresholds and recalls of the class; their means over the classes that have such
    objects are those of `coco_metrics`.
    """
    evaluation = _accumulated(annotations, detections)
    curves = evaluation.eval
    assert curves is not None, "accumulated"
    precision, recall = (np.asarray(curves[name]) for name in ("precision", "recall"))
    most = len(evaluation.params.max_dets) - 1
    found: dict[str, dict[str, float | None]] = {}
    for place, name in enumerate(annotations.category_names):
        sizes = dict(zip(evaluation.params.area_rng_lbl, range(precision.shape[3]), strict=True))
        of_all = precision[:, :, place, sizes["all"], most]
        thresholds = [round(float(iou), 2) for iou in evaluation.params.iou_thrs]
        found[name] = {
            "mmAP": _percent(of_all),
            "AP50": _percent(of_all[thresholds.index(0.5)]),
            "AP75": _percent(of_all[thresholds.index(0.75)]),
            **{f"AP_{size}": _percent(precision[:, :, place, sizes[size], most]) for size in SIZES},
            "mmAR": _percent(recall[:, place, sizes["all"], most]),
            **{f"AR_{size}": _percent(recall[:, place, sizes[size], most]) for size in SIZES},
        }
    return found


def _percent(values: NDArray[np.float64]) -> float | None:
    """The mean of the values that exist (-1: none), in percent."""
    there = values[values > -1]
    return 100 * float(there.mean()) if there.size else None


def _accumulated(annotations: Annotations, detections: NDArray[np.float64]) -> COCOeval:
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
    return evaluation


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
