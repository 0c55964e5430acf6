"""Backbones with a feature pyramid: ResNets and their kin, a small one for CPUs, or one's own; each given its norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50, resnext50_32x4d
from torchvision.models.resnet import ResNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from megdet.model.efficientnet_lite import CHANNELS as EFFICIENTNET_CHANNELS
from megdet.model.efficientnet_lite import OUTPUT_SCALE, efficientnet_lite0
from megdet.model.norms import FusedFrozenBatchNorm2d
from megdet.model.offload import offloading
from megdet.model.se_resnext import seresnext50_32x4d
from megdet.model.settings import OFFLOAD, STRIDES, BackboneSettings, FPNSettings
from megdet.model.sublinear import checkpointed
from megdet.settings.own_part import failed_trial, make, misfit


class Backbone(Protocol):
    """What a backbone of one's own is: a torch module with this. `Body` is one, for any stem and four stages.

    `_target_` is called with `norm`, which makes a norm layer from its number of channels, and the user's arguments.
    """

    @property
    def channels(self) -> Sequence[int]:
        """Of its four outputs."""

    def __call__(self, images: Tensor, *, sublinear: bool) -> Sequence[Tensor]:
        """Four maps [N, channels, H / stride, W / stride] of strides 4, 8, 16 and 32, for images [N, 3, H, W].

        With `sublinear`, activations are to be recomputed in backward (`megdet.model.sublinear.checkpointed`).
        """

    def freeze(self, count: int) -> None:
        """Fix the first `count` of stem and four stages: neither weights nor statistics change any more."""


class Body(nn.Module):
    """A convolutional network of a stem and four stages with strides 4, 8, 16 and 32, or 16 again if it is atrous.

    Names and state dict are those of torchvision's ResNet without its classifier.
    """

    def __init__(
        self,
        *,
        stem: dict[str, nn.Module],
        layers: Sequence[nn.Sequential],
        channels: tuple[int, ...],
        atrous: bool = False,
        output_scale: float = 1.0,
    ) -> None:
        """`output_scale`: what the outputs are multiplied by, where theirs is far from that of a ResNet's."""
        super().__init__()
        self.atrous, self.output_scale = atrous, output_scale
        layer_names = [f"layer{number}" for number in range(1, len(layers) + 1)]
        for name, module in [*stem.items(), *zip(layer_names, layers, strict=True)]:
            self.add_module(name, module)
        self._stage_names = [list(stem), *([name] for name in layer_names)]
        self.channels = channels
        """Of the outputs of the four stages."""

    def freeze(self, count: int) -> None:
        """Fix the first `count` of stem and stages: neither weights nor running statistics change any more."""
        for name in chain.from_iterable(self._stage_names[:count]):
            setattr(self, name, _frozen(self.get_submodule(name).requires_grad_(False)))

    def forward(self, x: Tensor, *, sublinear: bool) -> list[Tensor]:
        """The outputs of the four stages; with `sublinear`, activations inside the stem and blocks are recomputed.

        Not in the last stage: it costs as much as any other to recompute, and holds an eighth of the first's memory. If
        it is atrous it holds half, and is recomputed.
        """
        stem, *stages = ([self.get_submodule(name) for name in names] for names in self._stage_names)
        x = _run(stem, x, sublinear)
        outputs = []
        for (stage,) in stages:
            recomputed = sublinear and (self.atrous or stage is not stages[-1][0])
            for block in stage.children():
                x = _run([block], x, recomputed)
            outputs.append(x if self.output_scale == 1.0 else x * self.output_scale)
        return outputs


class BackboneWithFPN(nn.Module):
    """A backbone and its feature pyramid (Lin et al. 2017): five levels [N, channels, H / 4, W / 4] to H / 64.

    `large_kernel` (`megdet.model.large_kernel.LargeKernels`) maps the levels to others of the same shapes. With
    `sublinear` "offload", what all of it keeps for backward is in main memory.
    """

    def __init__(
        self,
        body: Backbone,
        pyramid: FPNSettings,
        *,
        norm: Callable[[int], nn.Module] | None,
        sublinear: bool | str,
        large_kernel: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.channels), pyramid.channels, LastLevelMaxPool(), norm_layer=norm)
        self.large_kernel = large_kernel
        self.sublinear, self.offload = bool(sublinear), sublinear == OFFLOAD

    def forward(self, images: Tensor) -> list[Tensor]:
        with offloading() if self.offload and self.training else nullcontext():
            outputs = self.body(images, sublinear=self.sublinear and self.training)
            levels = list(self.fpn({str(level): output for level, output in enumerate(outputs)}).values())
            return levels if self.large_kernel is None else self.large_kernel(levels)


def build_backbone(settings: BackboneSettings, norm: Callable[[int], nn.Module]) -> Backbone:
    """The backbone that is asked for, with random weights (He et al. 2015 for the built-in ones).

    Raises UserError for an own one that is not a `Backbone`.
    """
    if settings.custom is not None:
        return _own_backbone(settings.custom, norm)
    if settings.name == "tiny":
        return _tiny(norm, atrous=settings.atrous)
    if settings.name == "efficientnet_lite0":
        stem, layers = efficientnet_lite0(norm)
        return Body(stem=stem, layers=layers, channels=EFFICIENTNET_CHANNELS, output_scale=OUTPUT_SCALE)
    dilated = [False, False, settings.atrous]
    model = _RESNETS[settings.name](norm_layer=norm, replace_stride_with_dilation=dilated)
    return _resnet(model, atrous=settings.atrous)


_RESNETS: dict[str, Callable[..., ResNet]] = {
    "resnet50": resnet50,
    "resnet18": resnet18,
    "resnext50_32x4d": resnext50_32x4d,
    "seresnext50_32x4d": seresnext50_32x4d,
}


def _own_backbone(custom: Mapping[str, Any], norm: Callable[[int], nn.Module]) -> Backbone:
    key = "model.backbone.custom"
    body = make(key, custom, norm=norm)
    if not isinstance(body, nn.Module) or not callable(getattr(body, "freeze", None)):
        raise misfit(key, custom, "a backbone is a torch module with a method freeze(count)")
    channels = getattr(body, "channels", None)
    if not isinstance(channels, Sequence) or len(channels) != len(STRIDES):
        raise misfit(key, custom, f"its `channels` are {channels}, and not those of four outputs")
    height, width = 2 * STRIDES[-1], 3 * STRIDES[-1]
    expected = [(1, c, height // s, width // s) for c, s in zip(channels, STRIDES, strict=True)]
    try:
        with torch.no_grad():
            found = [tuple(output.shape) for output in body.eval()(torch.zeros(1, 3, height, width), sublinear=False)]
    except Exception as error:
        raise failed_trial(key, custom, error) from error
    if found != expected:
        raise misfit(key, custom, f"an image of {height} x {width} gives maps {found}, and not {expected}")
    body.train()
    return body  # type: ignore[return-value]  # as has been checked


def _resnet(model: ResNet, *, atrous: bool) -> Body:
    stem = {"conv1": model.conv1, "bn1": model.bn1, "relu": model.relu, "maxpool": model.maxpool}
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    width = model.fc.in_features // 8
    return Body(stem=stem, layers=layers, channels=(width, 2 * width, 4 * width, 8 * width), atrous=atrous)


def _tiny(norm: Callable[[int], nn.Module], *, atrous: bool = False) -> Body:
    channels = (16, 32, 64, 64)
    stem = dict(zip(("conv1", "bn1", "relu"), _conv_norm_relu(3, channels[0], 2, norm), strict=True))
    layers = []
    previous = channels[0]
    for stage, width in enumerate(channels, start=1):
        # As in torchvision's ResNet, the stage's first convolution loses its stride and the others are dilated.
        stride, dilation = (1, 2) if atrous and stage == len(channels) else (2, 1)
        down = nn.Sequential(*_conv_norm_relu(previous, width, stride, norm))
        layers.append(nn.Sequential(down, nn.Sequential(*_conv_norm_relu(width, width, 1, norm, dilation))))
        previous = width
    return Body(stem=stem, layers=layers, channels=channels, atrous=atrous)


def _conv_norm_relu(
    inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module], dilation: int = 1
) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
    # Fan in, so that activations keep their size where the norm is frozen at the identity.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, norm(outputs), nn.ReLU(inplace=True)


def _run(modules: Sequence[nn.Module], x: Tensor, sublinear: bool) -> Tensor:
    def run(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return x

    differentiated = x.requires_grad or any(p.requires_grad for module in modules for p in module.parameters())
    return checkpointed(run, x) if sublinear and differentiated else run(x)


def _frozen(module: nn.Module) -> nn.Module:
    """The module with every layer that has running statistics, at any depth, made a frozen batch norm."""
    mean = dict(module.named_buffers(recurse=False)).get("running_mean")
    if mean is not None:
        frozen = FusedFrozenBatchNorm2d(len(mean), eps=module.eps)
        frozen.load_state_dict(module.state_dict())
        return frozen
    for name, child in list(module.named_children()):
        setattr(module, name, _frozen(child))
    return module
