"""Anchors against a closed form, and on what they may depend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megdet.model.detector import build_detector
from megdet.model.norms import NormLayers
from megdet.model.roi_pool import build_roi_pool
from megdet.model.rows import pyramid_rows
from megdet.model.rpn import PyramidAnchors
from megdet.model.settings import (
    PYRAMID_STRIDES,
    AnchorSettings,
    BackboneSettings,
    EvaluationSettings,
    ModelSettings,
    RoIPoolSettings,
)
from tests.model.detectors import random_batch, small_detector

SETTINGS = AnchorSettings(sizes=[8, 20, 32, 64, 128], ratios=[0.5, 1.0, 3.0])


def maps(height: int, width: int) -> list[Tensor]:
    """Of the sizes that a detector has for an image padded to height x width, multiples of 32."""
    shapes = [(height // s, width // s) for s in PYRAMID_STRIDES[:-1]]
    last_height, last_width = shapes[-1]
    return [torch.zeros(1, 1, h, w) for h, w in (*shapes, (-(-last_height // 2), -(-last_width // 2)))]


@pytest.mark.parametrize("size", [(64, 128), (64, 96), (96, 160), (800, 1344)])
def test_an_anchor_is_centred_on_a_multiple_of_its_levels_stride_and_has_its_area_and_ratio(
    size: tuple[int, int],
) -> None:
    features = maps(*size)
    assert PYRAMID_STRIDES == (4, 8, 16, 32, 64)
    for level, anchors in enumerate(PyramidAnchors(SETTINGS)(features)):
        stride, side = PYRAMID_STRIDES[level], SETTINGS.sizes[level]
        expected = []
        for y in range(features[level].shape[2]):
            for x in range(features[level].shape[3]):
                for ratio in SETTINGS.ratios:
                    w, h = side / ratio**0.5, side * ratio**0.5
                    expected.append((x * stride - w / 2, y * stride - h / 2, x * stride + w / 2, y * stride + h / 2))
        # torchvision rounds the corners of the cell's anchors to whole pixels.
        torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=0.5001)


def test_an_anchor_is_the_same_whatever_the_padding() -> None:
    small, large = (PyramidAnchors(SETTINGS)(maps(*size)) for size in ((96, 160), (800, 1344)))
    of_cell = len(SETTINGS.ratios)
    for found, wider, feature, wide_feature in zip(small, large, maps(96, 160), maps(800, 1344), strict=True):
        height, width = feature.shape[2:]
        grid = wider.view(*wide_feature.shape[2:], of_cell, 4)[:height, :width]
        assert torch.equal(found.view(height, width, of_cell, 4), grid)


def test_the_detectors_maps_are_of_these_strides() -> None:
    detector = small_detector()
    for height, width in ((64, 96), (96, 160)):
        features = detector.backbone(detector._normalised(random_batch([(height, width)], padded=(height, width))))
        assert [f.shape[2:] for f in features] == [f.shape[2:] for f in maps(height, width)]


def test_an_atrous_detector_has_the_same_anchors_on_finer_maps() -> None:
    settings = BackboneSettings(name="tiny", weights="none", frozen_stages=0, atrous=True)
    norm, evaluation = NormLayers(backbone=nn.BatchNorm2d, fpn=None), EvaluationSettings()
    model = ModelSettings(backbone=settings, anchors=SETTINGS)
    detector = build_detector(model, evaluation, num_classes=2, norm=norm, sublinear=False, seed=0)
    batch = random_batch([(96, 160)], padded=(96, 160))
    features = detector.backbone(detector._normalised(batch))
    found, ordinary = detector.rpn.anchors(features), PyramidAnchors(SETTINGS)(maps(96, 160))
    for level, (anchors, wanted) in enumerate(zip(found, ordinary, strict=True)):
        height, width = features[level].shape[2:]
        step = 2 if level > 2 else 1
        assert torch.equal(anchors.view(height, width, -1, 4)[::step, ::step].flatten(0, 2), wanted)


def test_regions_of_an_atrous_detector_are_pooled_where_they_are() -> None:
    pool = build_roi_pool(RoIPoolSettings(resolution=1), (4, 8, 16, 16))
    # A map that is its own coordinate, in pixels of the image.
    features = [torch.arange(640 // s).mul(s).float().expand(1, 2, 640 // s, 640 // s) for s in (4, 8, 16, 16)]
    boxes = torch.tensor([[16.0, 0.0, 80.0, 64.0], [64.0, 0.0, 584.0, 520.0]])
    assert pool.levels(boxes).tolist() == [0, 3]  # as with strides 4, 8, 16 and 32
    pooled = pool(features, pyramid_rows(features), boxes, torch.zeros(2, dtype=torch.int64))
    assert pooled[:, 0, 0, 0].tolist() == pytest.approx([48.0, 324.0])
