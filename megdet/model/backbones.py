"""Backbones with a feature pyramid: ResNet-50, ResNet-18, and a small one for CPUs, each given its norm layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import ResNet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from megdet.errors import UserError
from megdet.model.sublinear import checkpointed

STRIDES = (4, 8, 16, 32)
"""Of the levels that regions are pooled from; the RPN has one more level, subsampled from the last."""


@dataclass(frozen=True)
class NormLayers:
    """What makes a norm layer, given its number of channels."""

    backbone: Callable[[int], nn.Module]
    fpn: Callable[[int], nn.Module] | None
    """None: the pyramid's convolutions have a bias and no norm."""


class FusedFrozenBatchNorm2d(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision has no types
    """torchvision's FrozenBatchNorm2d in one pass over the input and in the input's precision.

    torchvision's takes two passes and promotes bfloat16 to float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.to(x.dtype)[:, None, None], x, scale.to(x.dtype)[:, None, None])


class Body(nn.Module):
    """A convolutional network of a stem and four stages with strides 4, 8, 16 and 32.

    Names and state dict are those of torchvision's ResNet without its classifier.
    """

    def __init__(
        self, *, stem: dict[str, nn.Module], layers: Sequence[nn.Sequential], channels: tuple[int, ...]
    ) -> None:
        super().__init__()
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

        Not in the last stage: it costs as much as any other to recompute, and holds an eighth of the first's memory.
        """
        stem, *stages = ([self.get_submodule(name) for name in names] for names in self._stage_names)
        x = _run(stem, x, sublinear)
        outputs = []
        for (stage,) in stages:
            recomputed = sublinear and stage is not stages[-1][0]
            for block in stage.children():
                x = _run([block], x, recomputed)
            outputs.append(x)
        return outputs


class BackboneWithFPN(nn.Module):
    """A body and its feature pyramid (Lin et al. 2017): five levels [N, channels, H / 4, W / 4] to H / 64."""

    def __init__(self, body: Body, *, channels: int, norm: Callable[[int], nn.Module] | None, sublinear: bool) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(list(body.channels), channels, LastLevelMaxPool(), norm_layer=norm)
        self.sublinear = sublinear

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = self.body(images, sublinear=self.sublinear and self.training)
        levels = self.fpn({str(level): output for level, output in enumerate(outputs)})
        return list(levels.values())


def build_body(name: str, norm: Callable[[int], nn.Module]) -> Body:
    """`resnet50`, `resnet18` or `tiny`, with random weights (He et al. 2015)."""
    builders: dict[str, Callable[[Callable[[int], nn.Module]], Body]] = {
        "resnet50": lambda norm: _resnet(resnet50(weights=None, norm_layer=norm)),
        "resnet18": lambda norm: _resnet(resnet18(weights=None, norm_layer=norm)),
        "tiny": _tiny,
    }
    if name not in builders:
        raise UserError(f"model.backbone={name} is unknown; choose one of {', '.join(builders)}")
    return builders[name](norm)


def _resnet(model: ResNet) -> Body:
    stem = {"conv1": model.conv1, "bn1": model.bn1, "relu": model.relu, "maxpool": model.maxpool}
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    width = model.fc.in_features // 8
    return Body(stem=stem, layers=layers, channels=(width, 2 * width, 4 * width, 8 * width))


def _tiny(norm: Callable[[int], nn.Module]) -> Body:
    channels = (16, 32, 64, 64)
    stem = dict(zip(("conv1", "bn1", "relu"), _conv_norm_relu(3, channels[0], 2, norm), strict=True))
    layers = []
    previous = channels[0]
    for width in channels:
        down = nn.Sequential(*_conv_norm_relu(previous, width, 2, norm))
        layers.append(nn.Sequential(down, nn.Sequential(*_conv_norm_relu(width, width, 1, norm))))
        previous = width
    return Body(stem=stem, layers=layers, channels=channels)


def _conv_norm_relu(
    inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]
) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
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
