from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from megdet.data.coco import CocoSplit
from megdet.data.files import DataFiles
from megdet.errors import UserError

Write = Callable[..., Path]


def annotation(number: int, image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, **more}


CONTENT: dict[str, Any] = {
    "images": [
        {"id": 30, "file_name": "c.jpg", "height": 40, "width": 60},
        {"id": 10, "file_name": 'a "segmentation": [1] .jpg', "height": 50, "width": 50},
        {"id": 20, "file_name": "b.jpg", "height": 20, "width": 30},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        annotation(1, 10, 90, [5, 6, 10, 20], segmentation=[[5.0, 6.0, 15.0, 6.5, 1e-3, 26.0], [1, 2, 3, 4, 5, 6]]),
        annotation(2, 30, 1, [-5, 30, 20, 30], segmentation={"counts": [3, 4], "size": [40, 60]}),
        annotation(3, 10, 18, [1, 1, 3.5, 4.25], segmentation={"counts": "]\\[PQ01", "size": [50, 50]}),
        annotation(4, 10, 1, [0, 0, 50, 50], iscrowd=1),
        annotation(5, 30, 1, [60, 10, 5, 5]),  # outside
        annotation(6, 30, 1, [10, 10, 0, 5]),  # no width
        annotation(7, 30, 1, [10, 10, 5, -3]),  # negative height
        annotation(8, 30, 18, [10, 39.995, 5, 5]),  # a sliver inside
        annotation(9, 30, 18, [50.5, 10, 30, 10]),
    ],
}


def test_boxes_are_clipped_sorted_to_their_images_and_without_crowds(write_annotations: Write, tmp_path: Path) -> None:
    split = CocoSplit(tmp_path, write_annotations(CONTENT))
    assert split.image_ids == [30, 10, 20]
    assert split.sizes == [(40, 60), (50, 50), (20, 30)]
    assert split.category_ids == [1, 18, 90]
    assert split.category_names == ["person", "dog", "toothbrush"]
    assert split.file(1) == tmp_path / 'a "segmentation": [1] .jpg'
    assert split.boxes(0).tolist() == [[0, 30, 15, 40], [50.5, 10, 60, 20]]
    assert split.labels(0).tolist() == [1, 2]
    assert split.boxes(1).tolist() == [[5, 6, 15, 26], [1, 1, 4.5, 5.25]]
    assert split.labels(1).tolist() == [3, 2]
    assert split.boxes(2).shape == (0, 4) and split.labels(2).shape == (0,)
    assert split.dropped_boxes == 4
    assert (split.boxes(0).dtype, split.labels(0).dtype) == (np.float32, np.int64)


def test_a_generated_set_reads_as_pycocotools_reads_it(shapes: DataFiles, split: CocoSplit) -> None:
    coco = COCO(str(shapes.train_annotations))
    assert split.dropped_boxes == 0
    assert sorted(split.image_ids) == sorted(coco.imgs)
    for index, image_id in enumerate(split.image_ids):
        expected = [a for a in coco.imgToAnns[image_id] if not a["iscrowd"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in expected)]
        assert split.boxes(index).tolist() == corners
        assert [split.category_ids[label - 1] for label in split.labels(index)] == [a["category_id"] for a in expected]
        assert split.sizes[index] == (coco.imgs[image_id]["height"], coco.imgs[image_id]["width"])


def test_a_set_without_any_object_is_a_set(write_annotations: Write, tmp_path: Path) -> None:
    split = CocoSplit(tmp_path, write_annotations(CONTENT | {"annotations": []}))
    assert [len(split.boxes(index)) for index in range(len(split))] == [0, 0, 0]


def broken(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """CONTENT with the entry at `path` replaced, or removed where `value` is None."""
    content = copy.deepcopy(CONTENT)
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"images": [', "not valid JSON"),
        ([1, 2], "no object at the top"),
        (broken(("images",), None), "'images'"),
        (broken(("annotations",), None), "'annotations'"),
        (broken(("categories",), None), "'categories'"),
        (broken(("categories",), "person"), "not a COCO instances file"),
        (broken(("images", 1, "width"), None), "'width'"),
        (broken(("images", 1, "height"), 0), "width or height"),
        (broken(("images", 1, "id"), 20), "same id"),
        (broken(("annotations", 2, "bbox"), None), "'bbox'"),
        (broken(("annotations", 2, "bbox"), [1, 2, 3]), "not a COCO instances file"),
        (broken(("annotations", 2, "bbox"), [1, 2, 3, "wide"]), "wide"),
        (broken(("annotations", 2, "bbox"), [1, 2, 3, float("nan")]), "finite"),
        (broken(("annotations", 2, "image_id"), 77), "annotation 3 has image_id 77"),
        (broken(("annotations", 2, "category_id"), 2), "annotation 3 has category_id 2"),
    ],
)
def test_a_malformed_file_is_a_clear_error(write_annotations: Write, tmp_path: Path, content: Any, named: str) -> None:
    path = write_annotations(content)
    with pytest.raises(UserError) as error:
        CocoSplit(tmp_path, path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        CocoSplit(tmp_path, tmp_path / "instances.json")


def test_other_counts_than_planned_name_the_setting_and_the_right_number(
    write_annotations: Write, tmp_path: Path
) -> None:
    path = write_annotations(CONTENT)
    assert len(CocoSplit(tmp_path, path, expect_images=3, expect_classes=3)) == 3
    with pytest.raises(UserError, match=r"data\.train_images=4, .* set data\.train_images=3"):
        CocoSplit(tmp_path, path, expect_images=4)
    with pytest.raises(UserError, match=r"data\.val_images=2, .* set data\.val_images=3"):
        CocoSplit(tmp_path, path, expect_images=2, images_setting="data.val_images")
    with pytest.raises(UserError, match=r"set data\.num_classes=3"):
        CocoSplit(tmp_path, path, expect_classes=80)
