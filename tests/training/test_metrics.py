from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.coco_eval import random_set
from megdet.data.annotations import read_annotations
from megdet.data.files import coco_files
from megdet.data.masks import Masks
from megdet.runs.journal import COCO_METRICS, MASK_METRICS
from megdet.training.metrics import coco_metrics, coco_metrics_by_class
from tests.data.annotation_oracle import meaning_of

# numpy 2 finds fault with pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def reference(annotation_file: Path, detections: NDArray[np.float64]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        if len(detections):
            results = truth.loadRes(detections)
        else:  # pycocotools' loadRes looks at the first detection, so it cannot take none
            results = COCO()
            results.dataset = {k: truth.dataset[k] for k in ("images", "categories")} | {"annotations": []}
            results.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def masks_reference(annotation_file: Path, results: list[dict[str, Any]]) -> list[float]:
    """pycocotools' numbers of masks alone, as its server is given them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def ours_as_stats(annotation_file: Path, detections: NDArray[np.float64]) -> list[float]:
    metrics = coco_metrics(read_annotations(annotation_file), detections)
    assert tuple(metrics) == COCO_METRICS
    return [-1.0 if value is None else value for value in metrics.values()]


def as_percent(stats: list[float]) -> list[float]:
    return [value if value == -1 else 100 * value for value in stats]


@pytest.mark.parametrize(
    "images, categories, objects, per_image, crowd, seed",
    [
        (40, 1, 120, 20, 0.0, 0),
        (40, 5, 200, 30, 0.1, 1),
        (60, 80, 400, 40, 0.02, 2),
        (30, 3, 300, 150, 0.5, 3),  # more than 100 detections an image; half of the objects are crowds
        (200, 10, 60, 5, 0.0, 4),  # most images have no object
    ],
)
def test_all_12_numbers_are_pycocotools_own(
    tmp_path: Path, images: int, categories: int, objects: int, per_image: int, crowd: float, seed: int
) -> None:
    truth, detections = random_set(
        images=images, categories=categories, objects=objects, detections_per_image=per_image,
        crowd=crowd, seed=seed,
    )  # fmt: skip
    assert len(np.unique(detections[:, 5])) < len(detections), "no tied scores"
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    expected = reference(annotations, detections)
    assert max(expected) > 0.1
    assert ours_as_stats(annotations, detections) == as_percent(expected)


@pytest.mark.parametrize("seed", range(2))
def test_the_numbers_of_masks_are_pycocotools_own(shapes_root: Path, tmp_path: Path, seed: int) -> None:
    file, content = tmp_path / "truth.json", json.loads(coco_files(shapes_root).train_annotations.read_text())
    for number, entry in enumerate(content["annotations"]):
        x, y, w, h = entry["bbox"]
        entry["iscrowd"] = int(number % 9 == 4)
        if seed and not entry["iscrowd"]:
            entry["segmentation"] = [[x, y, x + w, y, x + w / 2, y + h]]
    file.write_text(json.dumps(content))
    annotations = read_annotations(file, masks=True)
    rng = np.random.default_rng(seed)
    rows, codes, results = [], [], []
    for place, owner in enumerate(annotations.owner):
        assert annotations.masks is not None
        size = (int(annotations.sizes[owner, 0]), int(annotations.sizes[owner, 1]))
        truth = annotations.masks.chosen(np.array([place])).pixels(size)[0]
        for _ in range(3):  # moved, with a box that is not the mask's, sometimes of another class
            moved = np.roll(truth, rng.integers(-3, 4, size=2), axis=(0, 1))
            category = (
                rng.choice(annotations.category_ids)
                if rng.random() < 0.2
                else annotations.category_ids[annotations.labels[place] - 1]
            )
            score, box = round(float(rng.random()), 2), annotations.boxes[place] + rng.uniform(0, 4, size=4)
            rows.append([annotations.image_ids[owner], *box, score, category])
            codes.append(rle.encode(np.asfortranarray(moved))["counts"])
            segmentation = {"size": list(size), "counts": codes[-1].decode()}
            results.append({"image_id": int(rows[-1][0]), "category_id": int(category), "score": score})
            results[-1]["segmentation"] = segmentation
    detections = np.array(rows, dtype=np.float64)
    metrics = coco_metrics(annotations, detections, Masks.of(codes))
    expected = masks_reference(file, results)
    assert max(expected) > 0.3 and annotations.crowds.any()
    assert [-1.0 if (value := metrics[name]) is None else value for name in MASK_METRICS] == as_percent(expected)
    assert [-1.0 if (value := metrics[name]) is None else value for name in COCO_METRICS] == as_percent(
        reference(file, detections)
    )
    by_class = coco_metrics_by_class(annotations, detections, Masks.of(codes))
    assert np.mean([own["mask_mmAP"] for own in by_class.values()]) == pytest.approx(metrics["mask_mmAP"])


def test_masks_cannot_be_scored_on_a_file_that_was_read_without(shapes_root: Path) -> None:
    annotations = read_annotations(coco_files(shapes_root).val_annotations)
    with pytest.raises(ValueError, match=r"instances_val2017.json was read without masks"):
        coco_metrics(annotations, np.zeros((0, 7)), Masks.of(()))


@pytest.mark.parametrize("seed", range(4))
def test_a_repaired_file_is_scored_as_pycocotools_scores_the_one_repaired_by_hand(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, detections = random_set(
        images=30, categories=4, objects=200, detections_per_image=30, crowd=0.1, seed=seed
    )  # fmt: skip
    for entry in truth["annotations"]:
        entry["id"] %= 7  # repeated, 0 among them, which pycocotools takes for "not matched"
        kind = rng.integers(40)
        x, y, w, h = entry["bbox"]
        if kind == 0:
            entry["bbox"] = [x, y, w, 0]
        elif kind == 1:
            entry["bbox"] = [700, y, w, h]
        elif kind == 2:
            entry["bbox"] = [x - 20, y, 700, h]
        elif kind < 6:
            entry["bbox"] = [str(side) for side in entry["bbox"]]
        elif kind < 9:
            del entry["area"]
        elif kind < 12 and not entry["iscrowd"]:
            entry["iscrowd"] = [None, "0", False][kind - 9]
    raw = json.dumps(truth).encode()
    (tmp_path / "raw.json").write_bytes(raw)
    meaning = meaning_of(raw)
    assert 180 < len(meaning.boxes) < 200
    by_hand = {
        "images": [{"id": i, "file_name": name, "width": w, "height": h} for i, name, w, h in meaning.images],
        "categories": [{"id": i, "name": name} for i, name in meaning.categories.items()],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": area, "iscrowd": int(crowd)}
            for n, (i, c, box, area, crowd) in enumerate(meaning.boxes, start=1)
        ],
    }
    (tmp_path / "by_hand.json").write_text(json.dumps(by_hand))
    expected = reference(tmp_path / "by_hand.json", detections)
    assert max(expected) > 0.1
    assert ours_as_stats(tmp_path / "raw.json", detections) == as_percent(expected)


def test_perfect_detections_score_100_whatever_the_annotation_ids(tmp_path: Path) -> None:
    truth, _ = random_set(images=20, categories=3, objects=80, detections_per_image=1, crowd=0.0, seed=9)
    seen: dict[int, int] = {}
    for entry in truth["annotations"]:
        entry["id"] = seen[entry["image_id"]] = seen.get(entry["image_id"], 0) + 1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    rows = [[a["image_id"], *a["bbox"], 0.9, a["category_id"]] for a in truth["annotations"]]
    metrics = coco_metrics(read_annotations(tmp_path / "truth.json"), np.array(rows, dtype=np.float64))
    assert metrics["mmAP"] == pytest.approx(100)


def test_without_a_detection_every_number_is_zero_or_absent_as_in_pycocotools(tmp_path: Path) -> None:
    truth, _ = random_set(images=10, categories=3, objects=20, detections_per_image=1, crowd=0.0, seed=5)
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    none = np.zeros((0, 7))
    assert ours_as_stats(annotations, none) == as_percent(reference(annotations, none))
    assert coco_metrics(read_annotations(annotations), none)["mmAP"] == 0


def test_a_file_without_objects_has_nothing_to_measure(tmp_path: Path) -> None:
    truth, detections = random_set(images=5, categories=2, objects=0, detections_per_image=4, crowd=0.0, seed=6)
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    assert reference(annotations, detections) == [-1.0] * 12
    assert coco_metrics(read_annotations(annotations), detections) == dict.fromkeys(COCO_METRICS)


def test_a_file_without_large_objects_has_no_number_for_large(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 7, "width": 100, "height": 100, "file_name": "7.jpg"}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
        ],
    }
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    metrics = coco_metrics(read_annotations(annotations), np.array([[7, 10, 10, 20, 20, 0.9, 3]], dtype=np.float64))
    assert metrics["mmAP"] == pytest.approx(100)
    assert metrics["AP_small"] == pytest.approx(100)
    assert metrics["AP_large"] is None and metrics["AR_medium"] is None


def test_detections_that_cannot_be_evaluated_are_refused(tmp_path: Path) -> None:
    truth, detections = random_set(images=3, categories=1, objects=3, detections_per_image=2, crowd=0.0, seed=7)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    annotations = read_annotations(tmp_path / "truth.json")
    with pytest.raises(ValueError, match=r"\[n, 7\]"):
        coco_metrics(annotations, detections[:, :6])
    detections[0, 5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        coco_metrics(annotations, detections)
    detections[0, 5], detections[0, 0] = 0.5, 99999
    with pytest.raises(ValueError, match="99999"):
        coco_metrics(annotations, detections)


def test_metrics_prints_nothing_and_loads_no_torch(tmp_path: Path) -> None:
    truth, detections = random_set(images=3, categories=1, objects=3, detections_per_image=2, crowd=0.0, seed=8)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    np.save(tmp_path / "detections.npy", detections)
    program = (
        "import sys, numpy as np; from megdet.data.annotations import read_annotations; "
        "from megdet.training.metrics import coco_metrics; "
        f"coco_metrics(read_annotations(r'{tmp_path}/truth.json'), np.load(r'{tmp_path}/detections.npy')); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_numbers_of_a_class_are_pycocotools_own_for_that_class_alone(tmp_path: Path) -> None:
    truth_content, detections = random_set(
        images=40, categories=4, objects=200, detections_per_image=30, crowd=0.1, seed=5
    )
    annotation_file = tmp_path / "truth.json"
    annotation_file.write_text(json.dumps(truth_content))
    annotations = read_annotations(annotation_file)
    found = coco_metrics_by_class(annotations, detections)
    assert list(found) == list(annotations.category_names)
    for number, numbers in zip(annotations.category_ids.tolist(), found.values(), strict=True):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotation_file))
            evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
            evaluation.params.catIds = [number]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats = dict(zip(COCO_METRICS, as_percent([float(value) for value in evaluation.stats]), strict=True))
        for name, value in numbers.items():
            assert (-1 if value is None else value) == pytest.approx(stats[name]), name
