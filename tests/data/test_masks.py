"""Masks from files to batches: polygons and both RLEs as pycocotools reads them, cached, mirrored, resized."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as reference
import pytest
import torch
from pycocotools.coco import COCO

from megdet.data import annotation_cache
from megdet.data.annotation_cache import load_annotations
from megdet.data.annotations import Annotations, read_annotations
from megdet.data.coco import CocoSplit
from megdet.data.data_set import read_data
from megdet.data.files import DataFiles
from megdet.data.loader import TrainLoader
from megdet.data.masks import Masks
from megdet.data.resolve import DataResolver
from megdet.data.segmentations import NoMasks
from megdet.errors import UserError
from tests.data.own_set import write_own_set
from tests.data.test_cache import settle

# numpy 2 finds fault with pycocotools' own arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 40, 60
TRIANGLE = [5.0, 6.0, 25.5, 6.5, 7.25, 26.0]
FAR_SQUARE = [40, 20, 55, 20, 55, 35, 40, 35]


def content_with(*segmentations: Any) -> dict[str, Any]:
    """Objects in one image of 60 x 40 pixels; ... leaves a segmentation out."""
    return {
        "images": [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": 10 + number, "image_id": 3, "category_id": 1, "bbox": [5, 6, 50, 29], "area": 40.0, "iscrowd": 0}
            | ({} if segmentation is ... else {"segmentation": segmentation})
            for number, segmentation in enumerate(segmentations)
        ],
    }


def disc(centre: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.asfortranarray(((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).astype(np.uint8))


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = reference.encode(mask)
    return {"size": code["size"], "counts": code["counts"].decode()}


def read(path: Path) -> Annotations:
    return read_annotations(path, masks=True)


def test_polygons_and_both_kinds_of_rle_are_read_as_pycocotools_reads_them(
    write_annotations: Callable[..., Path],
) -> None:
    path = write_annotations(
        content_with(
            [TRIANGLE],
            [TRIANGLE, FAR_SQUARE],
            [[-3, -2, 70, 5, 30, 45]],
            uncompressed(disc((0, 0), 12)),
            compressed(disc((20, 30), 15)),
            compressed(np.asfortranarray(np.ones((HEIGHT, WIDTH), dtype=np.uint8))),
        )
    )
    found, coco = read(path), COCO(path)
    assert found.masks is not None and len(found.masks) == len(coco.anns) == 6
    pixels = found.masks.pixels((HEIGHT, WIDTH))
    for place, annotation in enumerate(coco.anns.values()):
        np.testing.assert_array_equal(pixels[place], coco.annToMask(annotation))
        assert found.masks.code(place) == reference.encode(np.asfortranarray(pixels[place]))["counts"]


def test_every_mask_of_a_generated_set_is_pycocotools_own_crowds_included(shapes: DataFiles) -> None:
    found, coco = read(shapes.train_annotations), COCO(shapes.train_annotations)
    assert found.masks is not None and found.crowds.any()
    for place, annotation in enumerate(coco.anns.values()):
        height, width = found.sizes[found.owner[place]].tolist()
        expected = reference.encode(np.asfortranarray(coco.annToMask(annotation)))["counts"]
        assert found.masks.code(place) == expected, (height, width)


def test_runs_of_no_length_make_no_other_mask(write_annotations: Callable[..., Path]) -> None:
    mask = disc((20, 30), 15)
    runs = uncompressed(mask)["counts"]
    split = [*runs[:9], runs[9] - 3, 0, 3, *runs[10:]]  # the fifth run of ones, in two
    found = read(write_annotations(content_with({"size": [HEIGHT, WIDTH], "counts": split}, compressed(mask)))).masks
    assert found is not None and found.code(0) == found.code(1)


MISTAKES = {
    "no segmentation": (..., r"annotations\[1\] \(id 11\) has no segmentation"),
    "empty": ([], "has no segmentation"),
    "null": (None, "has no segmentation"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers, an odd one"),
    "two points": ([[1, 2, 3, 4]], "a polygon of 2 points"),
    "not numbers": ([[1, 2, "3", 4, 5, 6]], "a polygon is a list of numbers"),
    "flat": ([1, 2, 3, 4, 5, 6], "a polygon is a list of numbers"),
    "far away": ([[1, 2, 3, 4, 5, 6e8]], "a point at y = 6e\\+08, and the image has 60 x 40 pixels"),
    "other size": ({"size": [60, 40], "counts": [2400]}, r"size \[60, 40\].*\[height, width\] = \[40, 60\]"),
    "no size": ({"counts": [2400]}, "size nothing"),
    "too short": ({"size": [40, 60], "counts": [3, 4]}, "counts cover 7 pixels.*40 x 60 = 2400"),
    "negative": ({"size": [40, 60], "counts": [2401, -1]}, "neither whole numbers from 0 on"),
    "not compressed": ({"size": [40, 60], "counts": "a~b"}, "is no part of compressed counts"),
    "cut": ({"size": [40, 60], "counts": "o"}, "compressed counts end within a number"),
    "text": ("mask.png", "neither a list of polygons nor"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_segmentation_is_refused_where_masks_are_wanted_and_there_alone(
    mistake: str, write_annotations: Callable[..., Path]
) -> None:
    wrong, message = MISTAKES[mistake]
    path = write_annotations(content_with([TRIANGLE], wrong))
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    for part in (str(path), "(id 11)", "model.mask.name=null"):
        assert part in str(caught.value)
    assert len(read_annotations(path).boxes) == 2


def test_points_in_fractions_of_the_image_are_refused(write_annotations: Callable[..., Path]) -> None:
    fractions = [[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]
    with pytest.raises(UserError, match=r"8 more like it.*are points in fractions of the image"):
        read(write_annotations(content_with(*[fractions] * 9)))
    [said] = read(write_annotations(content_with([TRIANGLE], fractions))).repairs
    assert "masks without a pixel" in said


def test_masks_follow_their_boxes_where_boxes_are_left_out_and_images_chosen(
    write_annotations: Callable[..., Path],
) -> None:
    content = content_with([TRIANGLE], uncompressed(disc((20, 30), 9)), [FAR_SQUARE])
    content["annotations"][0]["bbox"] = [70, 6, 5, 5]  # outside
    content["images"].append({"id": 4, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH})
    content["annotations"][2]["image_id"] = 4
    found = read(write_annotations(content))
    second = found.of_images(np.array([False, True]))
    assert found.masks is not None and second.masks is not None
    np.testing.assert_array_equal(found.masks.pixels((HEIGHT, WIDTH))[0], disc((20, 30), 9))
    assert [second.masks.code(0)] == [found.masks.code(1)] and len(second.masks) == 1


def test_masks_come_back_from_the_cache_and_are_kept_apart_from_boxes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEGDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(annotation_cache, "KEPT_FROM_BYTES", 0)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content_with([TRIANGLE], [FAR_SQUARE])))
    settle(path)
    assert load_annotations(path).masks is None
    first = load_annotations(path, masks=True).masks
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda path, masks: pytest.fail("read again"))
    again = load_annotations(path, masks=True).masks
    assert first is not None and again is not None
    assert [again.code(place) for place in (0, 1)] == [first.code(place) for place in (0, 1)]
    assert load_annotations(path).masks is None


def test_a_mask_changes_what_data_is_known_by_only_where_masks_are_learned(tmp_path: Path) -> None:
    def with_masks(shift: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        def change(*contents: dict[str, Any]) -> None:
            for content in contents:
                for entry in content["annotations"]:
                    x, y, w, h = entry["bbox"]
                    entry["segmentation"] = [[x, y, x + w - shift, y, x + w, y + h, x, y + h]]

        return change

    first = write_own_set(tmp_path / "a", change=with_masks(0))
    second = write_own_set(tmp_path / "b", change=with_masks(5))
    boxes = read_data(first).facts
    facts = [read_data(data, masks=True).facts for data in (first, second)]
    assert {boxes.fingerprint} == {one.fingerprint for one in facts} and boxes.masks_fingerprint is None
    assert facts[0].masks_fingerprint != facts[1].masks_fingerprint
    assert DataResolver().resolve(first).masks_fingerprint is None
    planned = DataResolver().resolve(first, masks=True)
    assert (planned.fingerprint, planned.masks_fingerprint) == (boxes.fingerprint, facts[0].masks_fingerprint)
    other = replace(second, masks_fingerprint=planned.masks_fingerprint)
    with pytest.raises(UserError, match=r"data.masks_fingerprint=\w+, but that of the masks in .*learn.json"):
        read_data(other, masks=True)


def test_data_without_masks_is_refused_when_it_is_planned(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    assert DataResolver().resolve(data).fingerprint
    with pytest.raises(NoMasks, match=r"learn.json: no annotation has a segmentation.*model.mask.name=null"):
        DataResolver().resolve(data, masks=True)


def loader_of(shapes: DataFiles, *, workers: int = 0, **more: Any) -> TrainLoader:
    split = CocoSplit(shapes.train_images, read(shapes.train_annotations))
    shape: dict[str, Any] = {"batch": 8, "bn_size": 4, "images_per_gpu": 8, "accumulation": 1, "rank": 0}
    shape |= {"world_size": 1, "seed": 3, "min_size": 128, "max_size": 213, "flip": True, "aspect_grouping": True}
    shape |= {"max_bad_images": 0, "pin_memory": False, "masks": True, **more}
    return TrainLoader(split, workers=workers, **shape)


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.75])
def test_a_batch_has_the_masks_of_its_objects_resized_and_mirrored_as_the_image(
    shapes: DataFiles, scale: float
) -> None:
    loader = loader_of(shapes, train_scales=[scale])
    coco = COCO(shapes.train_annotations)
    mirrored = 0
    for batch in next(iter(loader.epoch(0))).image_batches:
        assert batch.masks is not None
        for image_id, size, boxes, masks in zip(batch.image_ids, batch.sizes, batch.boxes, batch.masks, strict=True):
            own = [one for one in coco.imgToAnns[image_id] if not one["iscrowd"]]
            assert masks.shape == (len(own), *size) and masks.dtype == torch.uint8
            flip = loader._flips(loader.split.image_ids.index(image_id), 0)
            mirrored += flip
            for annotation, box, mask in zip(own, boxes, masks, strict=True):
                truth = torch.from_numpy(coco.annToMask(annotation))
                # A pixel shows the old pixel that its centre lies in.
                y, x = (
                    ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).floor().long()
                    for new, old in zip(size, truth.shape, strict=True)
                )
                expected = truth[y][:, x]
                assert torch.equal(mask, expected.flip(-1) if flip else expected)
                rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
                if len(rows) and scale >= 1:
                    drawn = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
                    assert np.abs(np.array(drawn) - box.numpy()).max() < 1 + scale
    assert mirrored


def test_worker_processes_make_the_same_masks(shapes: DataFiles) -> None:
    here, there = (next(iter(loader_of(shapes, workers=workers).epoch(1))) for workers in (0, 2))
    for one, other in zip(here.image_batches, there.image_batches, strict=True):
        assert one.masks and other.masks
        assert all(map(torch.equal, one.masks, other.masks))


def test_an_image_that_cannot_be_read_has_no_masks(shapes: DataFiles, tmp_path: Path) -> None:
    loader = loader_of(replace(shapes, train_images=tmp_path), max_bad_images=1000)
    for batch in next(iter(loader.epoch(0))).image_batches:
        assert batch.masks and [mask.shape for mask in batch.masks] == [(0, *size) for size in batch.sizes]


def test_masks_drawn_and_read_back_are_the_same() -> None:
    pixels = (torch.rand(5, 30, 20, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)
    pixels[2] = 0
    masks = Masks.drawn(pixels.numpy())
    np.testing.assert_array_equal(masks.pixels((30, 20)), pixels)
    np.testing.assert_array_equal(masks.chosen(np.array([3, 0])).pixels((30, 20)), pixels[[3, 0]])
    assert masks.chosen(np.array([], dtype=np.int64)).pixels((4, 6)).shape == (0, 4, 6)
