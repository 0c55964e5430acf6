"""Segmentation supervision: its targets place by place, its loss image by image, and nothing of it in detection."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector, build_detector
from megdet.model.norms import norm_layers
from megdet.model.segmentation import targets_of
from megdet.model.settings import EvaluationSettings, ModelSettings, SegmentationSettings
from tests.model.detectors import detect, gradients, random_batch, train_pass
from tests.tiny import tiny_model

SIZES = [(64, 96), (50, 80), (64, 64)]


def detector_with(weight: float | None, *, bn_in: tuple[str, ...] = (), bn_size: int = 3) -> Detector:
    model = tiny_model()
    model.segmentation, model.bn_in = (
        SegmentationSettings(weight=weight, channels=8 if weight else None),
        ["backbone", "fpn", *bn_in],
    )
    model.check()
    norm = norm_layers(model, bn_size=bn_size, group=None)
    return build_detector(model, EvaluationSettings(), num_classes=4, norm=norm, sublinear=False, seed=0)


def places(boxes: Tensor, labels: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> list[list[int]]:
    """One by one, in plain numbers; -100 outside of the image."""
    found = []
    for row in range(grid[0]):
        line = []
        for column in range(grid[1]):
            y, x = 8 * row + 4, 8 * column + 4
            around = [
                ((x2 - x1) * (y2 - y1), int(label))
                for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True)
                if x1 <= x < x2 and y1 <= y < y2
            ]
            line.append(-100 if y >= size[0] or x >= size[1] else min(around, default=(0, 0))[1])
        found.append(line)
    return found


@pytest.mark.parametrize("objects", [0, 1, 8])
def test_a_place_is_of_the_smallest_box_around_it(objects: int) -> None:
    batch = random_batch(SIZES, objects=objects, seed=objects)
    for boxes, labels, size in zip(batch.boxes, batch.labels, batch.sizes, strict=True):
        found = targets_of(boxes, labels, size, (8, 12)).tolist()
        assert found == places(boxes, labels, size, (8, 12))
        assert (max(map(max, found)) > 0) == (objects > 0)


def test_an_image_that_is_too_flat_for_any_place_adds_nothing() -> None:
    detector = detector_with(0.25, bn_size=0)
    flat = train_pass(detector, random_batch([(4, 96), (64, 96)])).losses["segmentation"]
    assert bool(flat.isfinite())


def test_the_loss_is_each_images_mean_over_its_own_places() -> None:
    batch, weight = random_batch(SIZES), 0.25
    detector = detector_with(weight, bn_size=0)
    output = train_pass(detector, batch)
    with torch.no_grad():
        features = detector.backbone(detector._normalised(batch))
        logits = detector.segmentation.logits(features[:4]).double()
    assert logits.shape == (3, 5, 8, 12)
    expected = 0.0
    for n in range(3):
        wanted = places(batch.boxes[n], batch.labels[n], batch.sizes[n], (8, 12))
        losses = [
            math.log(sum(math.exp(v) for v in logits[n, :, y, x].tolist())) - float(logits[n, wanted[y][x], y, x])
            for y in range(8)
            for x in range(12)
            if wanted[y][x] >= 0
        ]
        expected += weight * sum(losses) / len(losses)
    assert output.losses["segmentation"].item() == pytest.approx(expected, rel=1e-5)
    alone = [train_pass(detector, batch.part(n, n + 1)).losses["segmentation"].item() for n in range(3)]
    assert sum(alone) == pytest.approx(expected, rel=1e-4)


def test_it_trains_the_pyramid_and_has_no_part_in_detection() -> None:
    detector = detector_with(1.0, bn_in=("segmentation",))
    assert sum(isinstance(module, CrossGPUBatchNorm2d) for module in detector.segmentation.modules()) == 4
    batch = random_batch(SIZES)
    output = detector.train()(batch)
    output.losses["segmentation"].backward()
    assert all(parameter.grad is not None for parameter in detector.segmentation.parameters())
    assert bool(detector.backbone.fpn.layer_blocks[1][0].weight.grad.any())
    train_pass(detector, batch)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(detector).values())
    before = [found.boxes for found in detect(detector, batch)]
    detector.segmentation.logits = None  # whoever calls it fails
    assert all(torch.equal(a, found.boxes) for a, found in zip(before, detect(detector, batch), strict=True))


def test_without_it_there_is_neither_head_nor_loss() -> None:
    detector = detector_with(None)
    assert detector.segmentation is None
    assert "segmentation" not in train_pass(detector, random_batch(SIZES)).losses
    with pytest.raises(UserError, match=r"model.bn_in has segmentation, and model.segmentation.weight=null"):
        ModelSettings(bn_in=["backbone", "segmentation"]).check("model.")
