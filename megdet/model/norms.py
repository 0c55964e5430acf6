"""Norm layers, and where they go: Cross-GPU BN, frozen BN, or one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torchvision.ops import FrozenBatchNorm2d

from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d, scaled
from megdet.model.settings import BN_PLACES, ModelSettings
from megdet.settings.own_part import failed_trial, make, misfit


class NormFactory(Protocol):
    """What makes a norm layer of one's own: `_target_` is called so, with the user's arguments besides.

    The layer is a torch module that maps [N, C, H, W] to the same shape. `bn_size` images are behind a statistic: those
    of all ranks of `group` in one forward pass, or, without a group, each run of `bn_size` images of this rank's.
    Running statistics of its own are its own affair, on every layout and with sublinear memory, under which it runs
    twice; to have CGBN's, inherit from `megdet.model.cgbn.CrossGPUBatchNorm2d`.
    """

    def __call__(self, channels: int, *, bn_size: int, group: dist.ProcessGroup | None) -> nn.Module: ...


@dataclass(frozen=True)
class NormLayers:
    """What makes a norm layer, given its number of channels."""

    backbone: Callable[[int], nn.Module]
    fpn: Callable[[int], nn.Module] | None
    """None: the pyramid's convolutions have a bias and no norm; so for the next four."""
    large_kernel: Callable[[int], nn.Module] | None = None
    context: Callable[[int], nn.Module] | None = None
    segmentation: Callable[[int], nn.Module] | None = None
    mask: Callable[[int], nn.Module] | None = None


class FusedFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """torchvision's FrozenBatchNorm2d in one pass over the input and in the input's precision.

    torchvision's takes two passes and promotes bfloat16 to float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        y = _Scaled.apply(x, scale, self.bias, self.running_mean)
        assert isinstance(y, Tensor)
        return y


class _Scaled(torch.autograd.Function):
    """scale * (x - centre) + shift, channel by channel; differentiable in x alone, which backward does not need."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor, shift: Tensor, centre: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return scaled(x, scale, shift, centre)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors  # type: ignore[attr-defined]
        zeros = torch.zeros_like(scale)
        return scaled(dy, scale, zeros, zeros), None, None, None


def norm_layers(model: ModelSettings, *, bn_size: int, group: dist.ProcessGroup | None) -> NormLayers:
    """The norm where `model.bn_in` puts it; elsewhere, and with `bn_size` 0, the backbone's BN is frozen.

    `group`: the ranks that share a statistic, where it takes several. Raises UserError for an own norm that is none.
    """
    if bn_size == 0:
        return NormLayers(backbone=FusedFrozenBatchNorm2d, fpn=None)
    norm: Callable[[int], nn.Module] = partial(CrossGPUBatchNorm2d, bn_size=bn_size, group=group)
    if model.norm.custom is not None:
        norm = _own_norm(model.norm.custom, bn_size, group)
    return NormLayers(
        backbone=norm if "backbone" in model.bn_in else FusedFrozenBatchNorm2d,
        **{place: norm if place in model.bn_in else None for place in BN_PLACES[1:]},
    )


def _own_norm(custom: Mapping[str, Any], bn_size: int, group: dist.ProcessGroup | None) -> Callable[[int], nn.Module]:
    key = "model.norm.custom"

    def layer(channels: int) -> nn.Module:
        made = make(key, custom, channels, bn_size=bn_size, group=group)
        if not isinstance(made, nn.Module):
            raise misfit(key, custom, f"it makes {type(made).__name__}, and not a torch module")
        return made

    shape = (2, 64, 4, 4)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            found = tuple(layer(shape[1]).eval()(torch.zeros(shape)).shape)
    except UserError:
        raise
    except Exception as error:
        raise failed_trial(key, custom, error) from error
    if found != shape:
        raise misfit(key, custom, f"it maps {shape} to {found}, and not to the same shape")
    return layer
