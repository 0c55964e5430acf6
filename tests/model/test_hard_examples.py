"""Online hard example mining against its definition: the regions of each image with the largest losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from megdet.data.batch import ImageBatch
from megdet.model.detector import Detector
from megdet.model.hard_examples import hardest
from megdet.model.rows import pyramid_rows
from tests.model.detectors import gradients, random_batch, small_detector, spread_scores, train_pass

SIZES = [(64, 96), (50, 80), (64, 64)]


@pytest.fixture
def detector() -> Detector:
    detector = small_detector(sampler="ohem")
    spread_scores(detector)
    return detector


def iou(a: Tensor, b: Tensor) -> float:
    width, height = (float(min(a[2 + axis], b[2 + axis]) - max(a[axis], b[axis])) for axis in (0, 1))
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / (sum(areas) - shared)


def hardest_one_by_one(boxes: Tensor, losses: list[float], count: int) -> list[int]:
    """Greedy, in plain numbers."""
    chosen: list[int] = []
    for place in sorted(range(len(boxes)), key=lambda i: -losses[i]):
        if all(iou(boxes[place], boxes[other]) <= 0.7 for other in chosen):
            chosen.append(place)
    return chosen[:count]


def losses_of_candidates(detector: Detector, batch: ImageBatch) -> tuple[Tensor, list[float]]:
    """All candidates of a batch of one image, and the loss that each would bear (Girshick 2015, Eq. 1 to 3)."""
    with torch.no_grad():
        features = detector.backbone(detector._normalised(batch))
        [proposals] = detector.rpn.propose(features, batch.sizes)
        objects = batch.boxes[0]
        boxes = torch.cat((proposals, objects))
        heads, table = detector.roi_heads, pyramid_rows(features)
        pooled = heads.pool(features[:4], table, boxes, torch.zeros(len(boxes), dtype=torch.int64))
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    losses = []
    for box, scores, moves in zip(boxes, logits.double(), deltas.double().unflatten(1, (-1, 4)), strict=True):
        overlaps = [iou(box, other) for other in objects]
        place = max(range(len(objects)), key=lambda i: overlaps[i])
        label = int(batch.labels[0][place]) if overlaps[place] >= 0.5 else 0
        loss = float(-F.log_softmax(scores, 0)[label])
        if label:
            (x1, y1, x2, y2), (u1, v1, u2, v2) = box.tolist(), objects[place].tolist()
            width, height = x2 - x1, y2 - y1
            target = (
                10 * (u1 + u2 - x1 - x2) / 2 / width,
                10 * (v1 + v2 - y1 - y2) / 2 / height,
                5 * math.log((u2 - u1) / width),
                5 * math.log((v2 - v1) / height),
            )
            for wanted, found in zip(target, moves[label].tolist(), strict=True):
                error = abs(found - wanted)
                loss += error * error * 4.5 if error < 1 / 9 else error - 1 / 18
        losses.append(loss)
    return boxes, losses


def test_the_regions_that_bear_loss_are_those_with_the_largest(detector: Detector) -> None:
    batch = random_batch(SIZES[:1], objects=5)
    detector.train()
    boxes, losses = losses_of_candidates(detector, batch)
    expected = hardest_one_by_one(boxes, losses, 24)
    output = train_pass(detector, batch)
    found = {tuple(box) for box in output.regions.boxes.tolist()}
    assert found == {tuple(boxes[place].tolist()) for place in expected} and len(found) == 24 < len(boxes)
    total = (output.losses["roi_class"] + output.losses["roi_box"]).item()
    assert total == pytest.approx(sum(losses[place] for place in expected) / 24, rel=1e-5)


def test_of_regions_that_overlap_only_the_one_with_the_largest_loss_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
    losses = torch.tensor([1.0, 3.0, 2.0])
    assert hardest(boxes, losses, 3).tolist() == [1, 2] and hardest(boxes, losses, 1).tolist() == [1]


def test_each_image_chooses_for_itself(detector: Detector) -> None:
    batch = random_batch(SIZES, objects=[3, 0, 6])
    detector.double()
    together = train_pass(detector, batch).regions
    for number in range(3):
        alone = train_pass(detector, batch.part(number, number + 1)).regions
        torch.testing.assert_close(together.boxes[together.image == number], alone.boxes, rtol=0, atol=1e-10)
        assert torch.equal(together.positive[together.image == number], alone.positive)


def test_choosing_in_bfloat16_takes_no_gradient_away(detector: Detector) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_pass(detector, random_batch(SIZES[:1]))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(detector).values())
    assert bool(gradients(detector)["roi_heads.box_head.fc6.weight"].any())
