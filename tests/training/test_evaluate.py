"""Detections of a split, as COCO rows, from all ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pycocotools import mask as reference
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import clip_boxes_to_image

from megdet.data.masks import Masks
from megdet.training.evaluate import Found, detect, encoded, gather_found
from tests.model.detectors import detect as detections_of
from tests.model.detectors import random_batch, small_detector, spread_scores
from tests.ranks import run_ranks


def gathered(shares: list[list[tuple[int, float]]]) -> NDArray[np.float64]:
    """What a rank has after its (image id, score) rows and the other ranks' have come together."""
    own = np.zeros((len(shares[dist.get_rank()]), 7))
    for row, (image_id, score) in zip(own, shares[dist.get_rank()], strict=True):
        row[[0, 5]] = image_id, score
    return gather_found(Found(own), torch.device("cpu")).rows


def gathered_masks(shares: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The (image id, pixels) of all ranks, each mask a square of so many pixels along a side."""
    own = shares[dist.get_rank()]
    rows = np.zeros((len(own), 7))
    rows[:, 0] = [image_id for image_id, _ in own]
    pixels = np.zeros((len(own), 20, 30), dtype=np.uint8)
    for mask, (_, side) in zip(pixels, own, strict=True):
        mask[:side, :side] = 1
    found = gather_found(Found(rows, Masks.drawn(pixels) if own else None), torch.device("cpu"))
    assert found.masks is not None
    sides = found.masks.pixels((20, 30)).sum((1, 2)) ** 0.5
    return list(zip(found.rows[:, 0].astype(int).tolist(), sides.astype(int).tolist(), strict=True))


@pytest.mark.parametrize("shares", [[[(3, 9), (3, 2), (1, 7)], [(2, 6)]], [[], [(2, 6), (1, 15)]]])
def test_every_rank_gets_all_masks_each_with_its_row(shares: list[list[tuple[int, int]]]) -> None:
    expected = sorted((row for share in shares for row in share), key=lambda row: row[0])
    assert run_ranks(2, gathered_masks, shares) == [expected, expected]


def test_masks_are_pasted_as_torchvision_pastes_them_and_encoded_as_pycocotools_encodes_them() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 60 - 5
    boxes = torch.cat((corner, corner + 1 + 40 * torch.rand(40, 2, generator=generator)), dim=1)
    boxes = clip_boxes_to_image(boxes[(boxes[:, 0] < 69) & (boxes[:, 1] < 49) & (boxes[:, 2:] > 1).all(1)], (50, 70))
    assert len(boxes) > 16, "more than are pasted at once"
    masks = torch.rand(len(boxes), 12, 12, generator=generator)
    pasted = paste_masks_in_image(masks[:, None], boxes, (50, 70))[:, 0].numpy() >= 0.5
    expected = [reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in pasted]
    assert encoded(masks, boxes, (50, 70)) == expected
    assert encoded(masks[:0], boxes[:0], (50, 70)) == []


@pytest.mark.parametrize(
    "shares",
    [[[(3, 0.9), (3, 0.8), (1, 0.7)], [(2, 0.6)]], [[], [(2, 0.6), (1, 0.5)]], [[], []]],
    ids=["unequal", "one without", "none at all"],
)
def test_every_rank_gets_all_rows_by_image_and_within_an_image_as_they_were(
    shares: list[list[tuple[int, float]]],
) -> None:
    expected = sorted((row for share in shares for row in share), key=lambda row: row[0])
    for rows in run_ranks(2, gathered, shares):
        assert rows.shape == (len(expected), 7)
        assert [(int(row[0]), float(row[5])) for row in rows] == expected


def test_a_row_is_image_corner_size_score_and_the_category_id_of_the_annotation_file() -> None:
    detector = small_detector(score_threshold=0.2)
    spread_scores(detector)
    batches = [random_batch([(64, 96), (50, 80)], seed=1), random_batch([(64, 64)], seed=2)]
    batches[0].image_ids, batches[1].image_ids = [700, 30], [5]
    category_ids = [1, 18, 44, 90]
    expected = []
    for batch in batches:
        with torch.no_grad():
            found = detections_of(detector, batch)
        for image_id, of_image in zip(batch.image_ids, found, strict=True):
            for (x1, y1, x2, y2), score, label in zip(of_image.boxes, of_image.scores, of_image.labels, strict=True):
                expected.append([image_id, x1, y1, x2 - x1, y2 - y1, score, category_ids[label - 1]])
    done = []
    rows = detect(
        detector.train(),
        batches,
        category_ids=category_ids,
        device=torch.device("cpu"),
        bf16=False,
        on_batch=lambda: done.append(1),
    ).rows
    assert rows.dtype == np.float64 and len(done) == 2
    np.testing.assert_allclose(rows, np.array(expected, dtype=np.float64), rtol=1e-6, atol=1e-5)
    assert len({*rows[:, 6]}) > 1 and {*rows[:, 0]} == {700, 30, 5}, "several classes, on all images"
