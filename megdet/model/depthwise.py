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

MOST_PIXELS = 1024
"""Of a map: on larger ones torch's own is as fast."""
_CORNERS = (0, 2)


def depthwise_conv2d(x: Tensor, weight: Tensor, *, stride: int, padding: tuple[int, int]) -> Tensor:
    """`F.conv2d` of x [N, C, H, W] with a kernel [C, 1, k, k] for each channel; differentiable once."""
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
    y = _FiveByFive.apply(x, weight, stride, padding)
    assert isinstance(y, Tensor)
    return y


class _FiveByFive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding  # type: ignore[attr-defined]
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride: int = ctx.stride  # type: ignore[attr-defined]
        padding: tuple[int, int] = ctx.padding  # type: ignore[attr-defined]
        dx = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            dx = _gradients(dy, x, weight, stride, padding, of_x=True)[0]
        vertical, horizontal = padding
        padded = F.pad(x, (horizontal, horizontal, vertical, vertical))
        height, width = ((size - 1) * stride + 3 for size in dy.shape[2:])
        kernel = weight[:, :, :3, :3].contiguous(memory_format=torch.channels_last)
        dweight = torch.empty_like(weight)
        for top in _CORNERS:
            for left in _CORNERS:
                window = padded[:, :, top : top + height, left : left + width]
                found = _gradients(dy, window, kernel, stride, (0, 0), of_x=False)[1]
                dweight[:, :, top : top + 3, left : left + 3] = found
        return dx, dweight, None, None


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], *, of_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the input or of the kernels, in that place."""
    wanted = [of_x, not of_x, False]
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        dy, x, weight, None, [stride, stride], padding, [1, 1], False, [0, 0], len(weight), wanted
    )
    return found
