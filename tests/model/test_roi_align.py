"""Multi-level RoIAlign against torchvision's MultiScaleRoIAlign, in its own precision and in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops import roi_align as torchvision_roi_align

from megdet.model import roi_align
from megdet.model.roi_align import RoIAlign
from megdet.model.rows import pyramid_rows

STRIDES = (4, 8, 16, 32)
HEIGHT, WIDTH, CHANNELS = 256, 320, 6


def pyramid(images: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(images, CHANNELS, HEIGHT // s, WIDTH // s, generator=generator)
        .to(dtype=dtype, memory_format=torch.channels_last)
        .requires_grad_()
        for s in STRIDES
    ]


def random_boxes(count: int, seed: int) -> Tensor:
    """Of all sizes, a third of them reaching over the border."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([WIDTH, HEIGHT])
    centre = torch.rand(count, 2, generator=generator) * extent
    size = torch.exp(torch.rand(count, 2, generator=generator) * 5 - 4.5) * extent
    return torch.cat((centre - size / 2, centre + size / 2), dim=1)


BOXES = {
    "random": [random_boxes(40, 1), random_boxes(25, 2)],
    "borders": [
        torch.tensor(
            [
                [0.0, 0.0, WIDTH, HEIGHT],
                [WIDTH - 2.0, HEIGHT - 2.0, WIDTH, HEIGHT],
                [0.0, 0.0, 0.0, 0.0],
                [-30.0, -30.0, -10.0, -10.0],
                [-3.0, -3.0, 3.0, 3.0],
                [WIDTH + 50.0, 10.0, WIDTH + 90.0, 60.0],
                [WIDTH - 4.0, 0.0, WIDTH + 4.0, HEIGHT + 8.0],
            ]
        ),
        torch.tensor([[8.0, 8.0, 15.999, 16.001]]),
    ],
    "one image without boxes": [torch.empty(0, 4), random_boxes(9, 3)],
    "one level only": [torch.tensor([[10.0, 10.0, 40.0, 30.0]]), torch.tensor([[50.0, 60.0, 70.0, 90.0]])],
    "no boxes": [torch.empty(0, 4), torch.empty(0, 4)],
}


def pooled_by_us(features: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
    images = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    pooled = RoIAlign(strides=STRIDES, resolution=resolution)(
        features, pyramid_rows(features), torch.cat(boxes), images
    )
    assert isinstance(pooled, Tensor)
    return pooled


def pooled_by_torchvision(features: list[Tensor], boxes: list[Tensor], resolution: int) -> Tensor:
    pool = MultiScaleRoIAlign([str(i) for i in range(4)], resolution, sampling_ratio=2)
    pooled = pool({str(i): f for i, f in enumerate(features)}, boxes, [(HEIGHT, WIDTH)] * 2)
    assert isinstance(pooled, Tensor)
    return pooled.permute(0, 2, 3, 1)


@pytest.mark.parametrize("as_sums", [True, False])
@pytest.mark.parametrize("name", BOXES)
def test_aligned_values_are_those_of_torchvisions_aligned_operator(
    name: str, as_sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi_align, "_fast_as_sums", lambda device: as_sums)
    features, boxes = pyramid(2), BOXES[name]
    images = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    pool = RoIAlign(strides=STRIDES, resolution=7, aligned=True)
    result = pool(features, pyramid_rows(features), torch.cat(boxes), images)
    levels, rois = pool.levels(torch.cat(boxes)), torch.cat([images[:, None].float(), torch.cat(boxes)], dim=1)
    for level, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        of_level = levels == level
        expected = torchvision_roi_align(feature.contiguous(), rois[of_level], 7, 1 / stride, 2, aligned=True)
        torch.testing.assert_close(result[of_level], expected.permute(0, 2, 3, 1), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("resolution", "as_sums"), [(7, True), (3, True), (7, False)])
@pytest.mark.parametrize("name", BOXES)
def test_values_and_gradients_are_torchvisions(
    name: str, resolution: int, as_sums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi_align, "_fast_as_sums", lambda device: as_sums)
    boxes = BOXES[name]
    ours, theirs = pyramid(2), [f.detach().contiguous().requires_grad_() for f in pyramid(2)]
    result = pooled_by_us(ours, boxes, resolution)
    expected = pooled_by_torchvision(theirs, boxes, resolution)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=2e-5)
    gradient = torch.randn(result.shape, generator=torch.Generator().manual_seed(4))
    result.backward(gradient)
    expected.backward(gradient)
    for level, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
        assert mine.grad is not None, f"level {level} has no gradient"
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-5, atol=2e-5)


def test_values_and_gradients_agree_with_float64() -> None:
    boxes = BOXES["random"]
    ours = pyramid(2)
    exact = [f.detach().double().contiguous().requires_grad_() for f in ours]
    result = pooled_by_us(ours, boxes, 7)
    expected = pooled_by_torchvision(exact, [b.double() for b in boxes], 7)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-4)
    gradient = torch.randn(result.shape, generator=torch.Generator().manual_seed(4))
    result.backward(gradient)
    expected.backward(gradient.double())
    for mine, its in zip(ours, exact, strict=True):
        assert mine.grad is not None and its.grad is not None
        torch.testing.assert_close(mine.grad.double(), its.grad, rtol=0, atol=5e-4)


def test_a_box_is_pooled_alike_whatever_else_is_pooled() -> None:
    features = pyramid(2)
    alone = pooled_by_us(features, [BOXES["random"][0][:1], torch.empty(0, 4)], 7)
    together = pooled_by_us(features, BOXES["random"], 7)
    assert torch.equal(alone[0], together[0])


def test_bfloat16_features_are_pooled_in_float32_and_get_bfloat16_gradients() -> None:
    boxes = BOXES["random"]
    low = pyramid(2, torch.bfloat16)
    high = [f.detach().float().requires_grad_() for f in low]
    result, expected = pooled_by_us(low, boxes, 7), pooled_by_us(high, boxes, 7)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)
    result.sum().backward()
    expected.sum().backward()
    for mine, its in zip(low, high, strict=True):
        assert mine.grad is not None and its.grad is not None
        assert torch.equal(mine.grad, its.grad.bfloat16())


def test_contiguous_features_give_the_values_of_channels_last_ones() -> None:
    features = pyramid(2)
    contiguous = [f.detach().contiguous() for f in features]
    assert torch.equal(pooled_by_us(features, BOXES["random"], 7), pooled_by_us(contiguous, BOXES["random"], 7))
