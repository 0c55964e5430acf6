from __future__ import annotations

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from megdet.data.coco import CocoSplit
from megdet.data.files import DataFiles
from tests.data.test_annotations import CONTENT, Write, annotation


def test_boxes_are_sorted_to_their_images_inside_them_and_without_crowds(
    write_annotations: Write, tmp_path: Path
) -> None:
    content = {
        **CONTENT, "annotations": [*CONTENT["annotations"], annotation(12, 30, 90, [-0.5, 20, 61, 20.25])]
    }  # fmt: skip
    split = CocoSplit(tmp_path, write_annotations(content))
    assert split.image_ids == [30, 10, 20]
    assert split.sizes == [(40, 60), (50, 50), (20, 30)]
    assert split.category_ids == [1, 18, 90]
    assert split.category_names == ["person", "dog", "toothbrush"]
    assert split.file(1) == tmp_path / 'a "segmentation": [1] .jpg'
    assert split.boxes(0).tolist() == [[0, 10, 15, 40], [50.5, 10, 60, 20], [0, 20, 60, 40]]
    assert split.labels(0).tolist() == [1, 2, 3]
    assert split.boxes(1).tolist() == [[5, 6, 15, 26], [1, 1, 4.5, 5.25]]
    assert split.labels(1).tolist() == [3, 2]
    assert split.boxes(2).shape == (0, 4) and split.labels(2).shape == (0,)
    assert (split.boxes(0).dtype, split.labels(0).dtype) == (np.float32, np.int64)


def test_a_generated_set_reads_as_pycocotools_reads_it(shapes: DataFiles, split: CocoSplit) -> None:
    coco = COCO(str(shapes.train_annotations))
    assert split.annotations.repairs == ()
    assert sorted(split.image_ids) == sorted(coco.imgs)
    for index, image_id in enumerate(split.image_ids):
        expected = [a for a in coco.imgToAnns[image_id] if not a["iscrowd"]]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in expected)]
        assert split.boxes(index).tolist() == corners
        assert [split.category_ids[label - 1] for label in split.labels(index)] == [a["category_id"] for a in expected]
        assert split.sizes[index] == (coco.imgs[image_id]["height"], coco.imgs[image_id]["width"])


def test_a_split_without_any_object_is_a_split(write_annotations: Write, tmp_path: Path) -> None:
    split = CocoSplit(tmp_path, write_annotations(CONTENT | {"annotations": []}))
    assert [len(split.boxes(index)) for index in range(len(split))] == [0, 0, 0]
