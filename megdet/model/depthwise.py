"""The gradient of 5 x 5 depthwise kernels on small maps, on a CPU.

torch's own (oneDNN's, as of torch 2.15) takes 20 to 60 times as long for 5 x 5 kernels as for 3 x 3 ones: a quarter
of all convolutions' time where EfficientNet-Lite0 reads images of 64 pixels. Four gradients of 3 x 3 kernels, on the
same maps two pixels apart, have all the 25 values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

MOST_PIXELS = 1024
"""Of a map: on larger ones torch's own is as fast."""
_CORNERS = (0, 2)


def depthwise_conv2d(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> Tensor:
    """`F.conv2d` of x [N, C, H, W] with a kernel [C, 1, k, k] for each channel; in the kernels differentiable once."""
    is_slow = (
        weight.shape[2:] == (5, 5)
        and weight.requires_grad
        and x.device.type == "cpu"
        and x.shape[2] * x.shape[3] <= MOST_PIXELS
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
    if not is_slow:
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=len(weight))
    y = F.conv2d(x, weight.detach(), stride=stride, padding=padding, groups=len(weight))
    with_gradient = _WithKernelGradient.apply(y, x.detach(), weight, stride, padding)
    assert isinstance(with_gradient, Tensor)
    return with_gradient


class _WithKernelGradient(torch.autograd.Function):
    """`y` as it is, differentiable in the kernels that made it of `x`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, y: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding  # type: ignore[attr-defined]
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride: int = ctx.stride  # type: ignore[attr-defined]
        vertical, horizontal = ctx.padding  # type: ignore[attr-defined]
        channels, dweight = len(weight), torch.empty_like(weight)  # in its layout, as DDP wants it
        padded = F.pad(x, (horizontal, horizontal, vertical, vertical))
        height, width = ((size - 1) * stride + 3 for size in dy.shape[2:])
        for top in _CORNERS:
            for left in _CORNERS:
                window = padded[:, :, top : top + height, left : left + width]
                found = conv2d_weight(window, (channels, 1, 3, 3), dy, stride=stride, groups=channels)
                dweight[:, :, top : top + 3, left : left + 3] = found
        return dy, None, dweight, None, None
