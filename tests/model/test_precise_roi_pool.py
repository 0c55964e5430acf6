"""Precise RoI Pooling against an exact integration by cells, in values and gradients, and in a detector."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from megdet.model.precise_roi_pool import PreciseRoIPool
from megdet.model.rows import pyramid_rows
from tests.model.test_roi_align import BOXES, HEIGHT, WIDTH, pyramid, random_boxes

STRIDES = (4, 8, 16, 32)


def surface(feature: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """The bilinear surface [C] of a map [C, H, W] at a point, 0 beyond one pixel outside."""
    _, height, width = feature.shape
    total = np.zeros(feature.shape[0])
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += feature[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def mean_by_cells(
    feature: NDArray[np.float64], top: float, left: float, bottom: float, right: float
) -> NDArray[np.float64]:
    """The mean over a rectangle: cut at whole numbers the surface is bilinear, and its mean that of the middle."""

    def cuts(low: float, high: float) -> list[float]:
        return [low, *(float(i) for i in range(math.floor(low) + 1, math.ceil(high))), high]

    total = np.zeros(feature.shape[0])
    for y0, y1 in pairwise(cuts(top, bottom)):
        for x0, x1 in pairwise(cuts(left, right)):
            total += (y1 - y0) * (x1 - x0) * surface(feature, (y0 + y1) / 2, (x0 + x1) / 2)
    return total / ((bottom - top) * (right - left))


def level_of(box: Tensor) -> int:
    """Lin et al. 2017, Eq. 1, over levels of strides 4 to 32."""
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(4 + math.log2(math.sqrt(area) / 224 + 1e-6)), 2), 5) - 2 if area > 0 else 0


def pooled(features: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
    images = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    pool = PreciseRoIPool(strides=STRIDES, resolution=resolution)
    result = pool(features, pyramid_rows(features), torch.cat(boxes), images)
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("resolution", [1, 3, 7])
def test_each_bin_is_the_exact_mean_of_the_bilinear_surface(resolution: int) -> None:
    features = pyramid(2)
    boxes = [random_boxes(5, 1), random_boxes(4, 2)]
    result = pooled(features, boxes, resolution)
    row = 0
    for image, its in enumerate(boxes):
        for box in its:
            level = level_of(box)
            feature = features[level].detach().double().numpy()[image]
            left, top, right, bottom = (box.double() / STRIDES[level]).tolist()
            height, width = (bottom - top) / resolution, (right - left) / resolution
            for i in range(resolution):
                for j in range(resolution):
                    begin_y, begin_x = top + i * height, left + j * width
                    expected = mean_by_cells(feature, begin_y, begin_x, begin_y + height, begin_x + width)
                    np.testing.assert_allclose(result[row, i, j].detach().numpy(), expected, rtol=1e-5, atol=1e-6)
            row += 1
    assert row == len(result)


def test_values_agree_with_numerical_integration_of_torchs_own_bilinear_reading() -> None:
    feature = pyramid(1)[0].detach()
    box = torch.tensor([[22.4, 30.8, 61.6, 90.0]])
    points = 1024  # a side; the quadrature itself is good to 1e-5
    result = pooled([feature, *pyramid(1)[1:]], [box], 2)[0]
    left, top, right, bottom = (box[0].double() / 4).tolist()
    along = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    y, x = top + along * (bottom - top), left + along * (right - left)
    _, _, height, width = feature.shape
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    grid = grid / torch.tensor([width - 1, height - 1]) * 2 - 1
    sampled = torch.nn.functional.grid_sample(feature.double(), grid[None], align_corners=True, padding_mode="zeros")
    expected = sampled[0].unflatten(1, (2, -1)).unflatten(3, (2, -1)).mean(dim=(2, 4)).permute(1, 2, 0)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-5)


def test_gradients_are_right_in_features_and_in_boxes() -> None:
    generator = torch.Generator().manual_seed(3)
    features = [torch.randn(1, 2, 12, 12, generator=generator, dtype=torch.float64).requires_grad_()]
    # Away from whole numbers, where the second derivative jumps.
    boxes = torch.tensor([[1.3, 2.4, 9.7, 7.6], [-1.6, -0.7, 3.3, 12.4], [4.3, 4.4, 4.6, 4.8]], dtype=torch.float64)
    boxes.requires_grad_()
    pool = PreciseRoIPool(strides=(1,), resolution=2)
    images = torch.zeros(3, dtype=torch.int64)

    def of(feature: Tensor, boxes: Tensor) -> Tensor:
        table = feature.permute(0, 2, 3, 1).flatten(0, 2)
        result = pool([feature], table, boxes, images)
        assert isinstance(result, Tensor)
        return result

    assert torch.autograd.gradcheck(of, (features[0], boxes))


@pytest.mark.parametrize("name", BOXES)
def test_boxes_at_and_beyond_the_border_or_none_at_all_are_pooled_and_differentiated(name: str) -> None:
    features = pyramid(2)
    result = pooled(features, BOXES[name], 7)
    result.sum().backward()
    assert result.shape == (sum(map(len, BOXES[name])), 7, 7, features[0].shape[1])
    assert result.isfinite().all()
    assert all(f.grad is not None and f.grad.isfinite().all() for f in features)


def test_a_region_without_area_gives_zero_and_one_outside_of_the_map_too() -> None:
    boxes = torch.tensor([[20.0, 20.0, 20.0, 40.0], [WIDTH + 40.0, 10.0, WIDTH + 90.0, 60.0], [0.0, 0.0, 32.0, 32.0]])
    result = pooled(pyramid(1), [boxes], 7)
    assert not result[:2].any() and result[2].all()


def test_a_box_is_pooled_alike_whatever_else_is_pooled() -> None:
    features = pyramid(2)
    alone = pooled(features, [BOXES["random"][0][:1], torch.empty(0, 4)], 7)
    together = pooled(features, BOXES["random"], 7)
    assert torch.equal(alone[0], together[0])


def test_bfloat16_features_are_pooled_in_float32() -> None:
    low = pyramid(2, torch.bfloat16)
    result = pooled(low, BOXES["random"], 7)
    assert result.dtype == torch.float32
    assert torch.equal(result, pooled([f.detach().float() for f in low], BOXES["random"], 7))


def test_a_constant_surface_gives_its_constant_inside() -> None:
    features = [torch.full((1, 2, HEIGHT // s, WIDTH // s), 3.0) for s in STRIDES]
    result = pooled(features, [torch.tensor([[8.0, 8.0, 8.001, 200.0], [30.0, 40.0, 200.0, 240.0]])], 7)
    torch.testing.assert_close(result, torch.full_like(result, 3.0))
