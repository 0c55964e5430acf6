"""COCO evaluation of 5,000 images: ours against pycocotools, in one run.

    python -m benchmarks.coco_eval [--images 5000] [--repeats 3] [--out FILE]

Generates 80 classes, about 36,000 objects (1.2 % crowds) and 100 detections an image with tied scores,
evaluates them with both, and prints the ratio of the times and the largest difference of the 12 numbers.
Each time goes from the annotation file and the array of detections to the 12 numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import write_report
from megdet.data.annotations import read_annotations
from megdet.training.metrics import coco_metrics


def random_set(
    *, images: int, categories: int, objects: int, detections_per_image: int, crowd: float, seed: int
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """A COCO annotation file's content and detections [n, 7] that look like a detector's.

    Half of the detections are jittered copies of objects (if there are any), the rest are noise; scores
    have few digits, so that many are tied. Category and image ids have gaps, as in COCO.
    """
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(images * 20, images, replace=False)) + 1
    category_ids = np.sort(rng.choice(categories * 2, categories, replace=False)) + 1
    owner = rng.integers(images, size=objects)
    category = rng.integers(categories, size=objects)
    size = np.exp(rng.uniform(np.log(8), np.log(300), (objects, 2)))
    boxes = np.concatenate([rng.uniform(0, 1, (objects, 2)) * (640 - size), size], axis=1).round(2)
    area = boxes[:, 2] * boxes[:, 3] * rng.uniform(0.5, 1, objects)  # as of a mask inside the box
    iscrowd = rng.random(objects) < crowd
    truth = {
        "images": [{"id": int(i), "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in image_ids],
        "categories": [{"id": int(i), "name": f"class {i}"} for i in category_ids],
        "annotations": [
            {
                "id": k + 1, "image_id": int(image_ids[owner[k]]), "category_id": int(category_ids[category[k]]),
                "bbox": boxes[k].tolist(), "area": float(area[k]), "iscrowd": int(iscrowd[k]),
            }
            for k in range(objects)
        ],
    }  # fmt: skip
    total = images * detections_per_image
    found_image = np.repeat(np.arange(images), detections_per_image)
    found_size = np.exp(rng.uniform(np.log(8), np.log(300), (total, 2)))
    found = np.concatenate([rng.uniform(0, 1, (total, 2)) * (640 - found_size), found_size], axis=1)
    found_category = rng.integers(categories, size=total)
    score = rng.beta(0.5, 6, total)
    for image in range(images if objects else 0):
        own = np.flatnonzero(owner == image)
        if own.size == 0:
            continue
        rows = image * detections_per_image + np.arange((detections_per_image + 1) // 2)
        copied = own[rng.integers(own.size, size=rows.size)]
        found[rows] = boxes[copied] + rng.normal(0, 0.06, (rows.size, 4)) * np.tile(boxes[copied, 2:], 2)
        found[rows, 2:] = np.maximum(found[rows, 2:], 1)
        found_category[rows] = np.where(rng.random(rows.size) < 0.9, category[copied], found_category[rows])
        score[rows] = rng.beta(2, 3, rows.size)
    columns = [image_ids[found_image], *found.round(2).T, score.round(3), category_ids[found_category]]
    return truth, np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def pycocotools_metrics(annotation_file: Path, detections: NDArray[np.float64]) -> list[float]:
    """The 12 `stats` of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; pycocotools runs once")
    parser.add_argument("--out", type=Path, help="default: results/benchmarks/coco_eval.json")
    arguments = parser.parse_args()
    truth, detections = random_set(
        images=arguments.images, categories=80, objects=round(7.267 * arguments.images),
        detections_per_image=100, crowd=0.012, seed=2,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "truth.json"
        annotations.write_text(json.dumps(truth))
        ours_s = []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            ours = coco_metrics(read_annotations(annotations), detections)
            ours_s.append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = pycocotools_metrics(annotations, detections)
        theirs_s = time.perf_counter() - start
    expected = [None if value == -1 else 100 * value for value in theirs]
    difference = max(
        0.0 if value is reference is None else abs((value or 0) - (reference or 0))
        for value, reference in zip(ours.values(), expected, strict=True)
    )
    ratio = theirs_s / median(ours_s)
    print(f"{arguments.images} images, {len(truth['annotations'])} objects, {len(detections)} detections")
    print(f"pycocotools {theirs_s:.2f} s   megdet {median(ours_s):.3f} s   ratio {ratio:.0f}x")
    print(f"mmAP {ours['mmAP']:.3f}   largest difference of the 12 numbers: {difference:.1e} percent points")
    report = write_report(
        "coco_eval",
        {
            "images": arguments.images, "objects": len(truth["annotations"]), "detections": len(detections),
            "pycocotools_s": theirs_s, "megdet_s": ours_s, "ratio": ratio,
            "largest_difference_percent": difference, "metrics_percent": ours,
        },
        arguments.out,
    )  # fmt: skip
    print(f"written to {report}")


if __name__ == "__main__":
    main()
