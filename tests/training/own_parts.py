"""Parts as a user would write them, one of each kind; and some that do not fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.ops import roi_pool

from megdet.model.backbones import Body
from megdet.planning.schedule import Schedule


class PatchNet(nn.Module):
    """A backbone from scratch: patches of 4 x 4 pixels, then three halvings."""

    def __init__(self, *, norm: Callable[[int], nn.Module], width: int) -> None:
        super().__init__()
        self.channels = (width, width, 2 * width, 2 * width)
        inputs, stages = 3, []
        for outputs, stride in zip(self.channels, (4, 2, 2, 2), strict=True):
            stages.append(nn.Sequential(nn.Conv2d(inputs, outputs, stride, stride), norm(outputs), nn.ReLU()))
            inputs = outputs
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor, *, sublinear: bool) -> list[Tensor]:
        outputs = []
        for stage in self.stages:
            images = stage(images)
            outputs.append(images)
        return outputs

    def freeze(self, count: int) -> None:
        assert count == 0


def narrow_body(*, norm: Callable[[int], nn.Module]) -> Body:
    """A backbone of megdet's own `Body`, which freezes and recomputes for it."""
    stem = {"conv": nn.Conv2d(3, 8, 2, 2), "norm": norm(8)}
    stages = [nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 2, 2), norm(8), nn.ReLU())) for _ in range(4)]
    return Body(stem=stem, layers=stages, channels=(8, 8, 8, 8))


def group_norm(channels: int, *, bn_size: int, group: dist.ProcessGroup | None, groups: int) -> nn.Module:
    """A norm that needs no batch."""
    return nn.GroupNorm(groups, channels)


class FinestLevelMaxPool(nn.Module):
    """RoI max pooling, of the finest level alone."""

    def __init__(self, *, strides: Sequence[int], resolution: int) -> None:
        super().__init__()
        self.stride, self.resolution = strides[0], resolution

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        rois = torch.cat([images[:, None].to(boxes), boxes], dim=1)
        return roi_pool(features[0].to(rois), rois, self.resolution, 1 / self.stride).permute(0, 2, 3, 1)


class SignMomentum(torch.optim.Optimizer):
    """Steps of one size, in the direction of a running mean of the gradient."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, beta: float) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["beta"])
                parameter.add_(mean.sign(), alpha=-group["lr"])


class Cosine:
    """Half a cosine from the plan's rate to `floor` times that."""

    def __init__(self, planned: Schedule, *, floor: float) -> None:
        self.planned, self.floor = planned, floor

    def lr_at(self, step: int) -> float:
        share = (1 + math.cos(math.pi * step / self.planned.steps)) / 2
        return self.planned.lr * (self.floor + (1 - self.floor) * share)


class WithoutFreeze(nn.Module):
    def __init__(self, *, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.channels = (8, 8, 8, 8)


class TooFewOutputs(PatchNet):
    def forward(self, images: Tensor, *, sublinear: bool) -> list[Tensor]:
        return super().forward(images, sublinear=sublinear)[:3]


class NoSublinear(PatchNet):
    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        return super().forward(images, sublinear=False)


def three_channels(*, norm: Callable[[int], nn.Module]) -> nn.Module:
    net = PatchNet(norm=norm, width=8)
    net.channels = (8, 8, 16)  # type: ignore[assignment]
    return net


def no_module(*given: object, **named: object) -> object:
    return object()


def halving_norm(channels: int, *, bn_size: int, group: dist.ProcessGroup | None) -> nn.Module:
    return nn.AvgPool2d(2)


class FlatPool(FinestLevelMaxPool):
    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        return super().forward(features, table, boxes, images).flatten(1)


def half_the_parameters(parameters: Sequence[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters[::2], lr=lr)


class Negative(Cosine):
    def lr_at(self, step: int) -> float:
        return 1.0 - step


class Crooked(Cosine):
    def lr_at(self, step: int) -> float:
        return self.planned.lr / (step - step)
