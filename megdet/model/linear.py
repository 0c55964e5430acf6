"""A linear layer at the speed of the CPU: oneDNN's matrix product in float32 too.

PyTorch sends float32 products on a CPU to MKL, which reaches half of oneDNN's speed on AMD processors, and the
two layers of the box head are a third of a small detector's step. In bfloat16 PyTorch uses oneDNN itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`torch.nn.functional.linear` of x [n, in]."""
    if _onednn_serves(x, weight):
        return _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def _onednn_serves(x: Tensor, weight: Tensor) -> bool:
    return bool(
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and len(x) > 0
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        return _product(grad, weight.t()), _product(grad.t(), x.t()), grad.sum(0)
