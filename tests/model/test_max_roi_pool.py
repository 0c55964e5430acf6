"""RoI pooling against its definition (Girshick 2015): the largest pixel under each bin, borders rounded outwards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megdet.model.max_roi_pool import MaxRoIPool
from megdet.model.rows import pyramid_rows
from tests.model.test_precise_roi_pool import STRIDES, level_of
from tests.model.test_roi_align import BOXES, pyramid


def largest(feature: Tensor, box: Tensor, stride: int, bins: int) -> Tensor:
    """[bins, bins, C] of one box."""
    left, top, right, bottom = (math.floor(float(side) / stride + 0.5) for side in box)
    height, width = max(bottom - top + 1, 1) / bins, max(right - left + 1, 1) / bins
    result = torch.zeros(bins, bins, feature.shape[0])
    for i in range(bins):
        for j in range(bins):
            y0, y1 = max(math.floor(i * height) + top, 0), math.ceil((i + 1) * height) + top
            x0, x1 = max(math.floor(j * width) + left, 0), math.ceil((j + 1) * width) + left
            part = feature[:, y0 : max(y1, 0), x0 : max(x1, 0)]
            if part.numel():
                result[i, j] = part.amax(dim=(1, 2))
    return result


def test_each_bin_is_the_largest_pixel_under_it() -> None:
    features = pyramid(1)
    boxes = torch.cat([BOXES["random"][0], BOXES["borders"][0][:2]])
    pool = MaxRoIPool(strides=STRIDES, resolution=3)
    pooled = pool(features, pyramid_rows(features), boxes, torch.zeros(len(boxes), dtype=torch.int64))
    for box, found in zip(boxes, pooled, strict=True):
        level = level_of(box)
        assert torch.equal(found, largest(features[level][0].detach(), box, STRIDES[level], 3)), box
