"""The gradient of 5 x 5 depthwise kernels, against torch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from megdet.model import depthwise
from megdet.model.depthwise import depthwise_conv2d


def gradients(x: Tensor, weight: Tensor, dy: Tensor, **how: object) -> tuple[Tensor, ...]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = depthwise_conv2d(x, weight, **how)  # type: ignore[arg-type]
    return y.detach(), *torch.autograd.grad(y, (x, weight), dy)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [((3, 2), 1, (2, 2)), ((6, 9), 1, (2, 2)), ((9, 7), 2, (0, 0)), ((7, 10), 2, (2, 1))]
)
def test_output_and_gradients_are_those_of_float64(
    size: tuple[int, int], stride: int, padding: tuple[int, int], memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 24, *size, generator=generator).contiguous(memory_format=memory_format)
    weight = torch.randn(24, 1, 5, 5, generator=generator).contiguous(memory_format=memory_format)
    shape = functional.conv2d(x, weight, stride=stride, padding=padding, groups=24).shape
    dy = torch.randn(shape, generator=generator)
    how = {"stride": stride, "padding": padding}
    found = gradients(x, weight, dy, **how)
    wanted = gradients(x.double(), weight.double(), dy.double(), **how)  # float64 is left to torch
    assert found[2].stride() == weight.stride(), "else DDP copies it"
    for ours, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


def test_where_torch_is_slow_its_gradient_of_the_kernels_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def watched(x: Tensor, shape: tuple[int, ...], dy: Tensor, **how: int) -> Tensor:
        asked.append(shape[2:])
        return conv2d_weight(x, shape, dy, **how)

    monkeypatch.setattr(depthwise, "conv2d_weight", watched)
    weight, how = torch.ones(8, 1, 5, 5), {"stride": 1, "padding": (2, 2)}
    gradients(torch.ones(1, 8, 4, 4), weight, torch.ones(1, 8, 4, 4), **how)
    assert asked == [(3, 3)] * 4
    gradients(torch.ones(1, 8, 40, 40), weight, torch.ones(1, 8, 40, 40), **how)
    assert len(asked) == 4, "on a large map torch's own"
