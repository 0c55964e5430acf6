"""The 12 COCO numbers of a set of detections, of boxes and of masks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval
from hotcoco import mask as rle
from numpy.typing import NDArray

from megdet.data.annotations import Annotations
from megdet.data.masks import Masks
from megdet.runs.journal import COCO_METRICS, MASK_METRICS

SIZES = ("small", "medium", "large")


def coco_metrics(
    annotations: Annotations, detections: NDArray[np.float64], masks: Masks | None = None
) -> dict[str, float | None]:
    """AP and AR of `detections` against what was read of an annotation file, as pycocotools computes them.

    COCO_METRICS of boxes; with `masks`, those of the n detections, MASK_METRICS too, and `annotations` must have masks.

    `detections` is float64 [n, 7]: image id, x, y, width, height (pixels of the original image), score,
    category id; n may be 0. All images count, detected on or not. The values are percent;
    None where there is nothing to measure (no large object, say; pycocotools says -1).
    """
    found = dict(zip(COCO_METRICS, _summary(_accumulated(annotations, detections)), strict=True))
    if masks is not None:
        found |= zip(MASK_METRICS, _summary(_accumulated(annotations, detections, masks)), strict=True)
    return found


def _summary(evaluation: COCOeval) -> list[float | None]:
    with contextlib.redirect_stdout(io.StringIO()):  # summarize() fills `stats`, and prints
        evaluation.summarize()
    return [None if value == -1 else 100 * float(value) for value in evaluation.stats]


def coco_metrics_by_class(
    annotations: Annotations, detections: NDArray[np.float64], masks: Masks | None = None
) -> dict[str, dict[str, float | None]]:
    """By class name the same numbers as `coco_metrics`, of that class alone, as far as they are about 100 detections.

    Each is the mean over IoU thresholds and recalls of the class; their means over the classes that have such
    objects are those of `coco_metrics`.
    """
    found = _by_class(annotations, _accumulated(annotations, detections))
    if masks is not None:
        of_masks = _by_class(annotations, _accumulated(annotations, detections, masks))
        for name, own in found.items():
            own |= {f"mask_{metric}": value for metric, value in of_masks[name].items()}
    return found


def _by_class(annotations: Annotations, evaluation: COCOeval) -> dict[str, dict[str, float | None]]:
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


def _accumulated(annotations: Annotations, detections: NDArray[np.float64], masks: Masks | None = None) -> COCOeval:
    """Of boxes, or of masks where they are given."""
    if detections.ndim != 2 or detections.shape[1] != 7:
        raise ValueError(f"detections must be [n, 7], not {list(detections.shape)}")
    if not np.isfinite(detections).all():
        raise ValueError("detections must be finite")
    unknown = np.setdiff1d(detections[:, 0], annotations.image_ids)
    if unknown.size:
        raise ValueError(f"detections on images that {annotations.path} does not list: {unknown[:5].tolist()}")
    truth = _ground_truth(annotations, with_masks=masks is not None)
    if masks is None:
        evaluation = COCOeval(truth, truth.load_res(detections), "bbox")
    else:
        sizes = dict(zip(annotations.image_ids.tolist(), annotations.sizes.tolist(), strict=True))
        drawn = _as_rle(masks, [sizes[int(image_id)] for image_id in detections[:, 0]])
        results = truth.load_res(detections, segmentation=drawn)
        # The area of the mask, by which unmatched ones are small or large: pycocotools' for results without boxes.
        results.update_anns(ids=np.arange(1, len(drawn) + 1), area=np.asarray(rle.area(drawn), dtype=np.float64))
        evaluation = COCOeval(truth, results, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _as_rle(masks: Masks, sizes: Sequence[Sequence[int]]) -> list[Any]:
    return [masks.rle(place, (height, width)) for place, (height, width) in enumerate(sizes)]


def _ground_truth(annotations: Annotations, *, with_masks: bool) -> COCO:
    sizes = annotations.sizes.tolist()
    drawn = None
    if with_masks:
        if annotations.masks is None:
            raise ValueError(f"{annotations.path} was read without masks")
        drawn = _as_rle(annotations.masks, annotations.sizes[annotations.owner].tolist())
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
        segmentation=drawn,
    )
