"""SE-ResNeXt-50 32x4d (Hu et al. 2018 on Xie et al. 2017): torchvision's ResNeXt whose blocks weigh their channels.

Names are timm's, so its ImageNet weights load.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import SqueezeExcitation

REDUCTION = 16
"""How many times narrower the channels' weights are computed than there are channels."""


class SEBottleneck(Bottleneck):  # type: ignore[misc]  # torchvision has no types
    """A bottleneck with squeeze and excitation before its residual is added."""

    def __init__(self, inplanes: int, planes: int, *arguments: Any, **named: Any) -> None:
        super().__init__(inplanes, planes, *arguments, **named)
        width = planes * self.expansion
        self.se = SqueezeExcitation(width, width // REDUCTION)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.se(self.bn3(self.conv3(out)))
        out += x if self.downsample is None else self.downsample(x)
        summed: Tensor = self.relu(out)
        return summed


def seresnext50_32x4d(**named: Any) -> ResNet:
    """As torchvision's `resnext50_32x4d`, which takes the same arguments."""
    return ResNet(SEBottleneck, [3, 4, 6, 3], groups=32, width_per_group=4, **named)
