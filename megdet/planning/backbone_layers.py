"""The convolutions of the backbones that come with megdet, as far as planning counts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from megdet.model.settings import BackboneSettings

ONE_PIXEL = 2**20
"""Stride of a map of one pixel, whatever the image."""


@dataclass(frozen=True)
class Conv:
    """A convolution with a norm."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    """Of its output, to the image."""
    kept: int = 1
    """How many maps of its output's size backward needs of what follows: its activation, where that is an input."""
    groups: int = 1

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs // self.groups

    @property
    def numbers(self) -> float:
        """Of its output, for each pixel of the image."""
        return self.outputs / self.stride**2


Block = tuple[Conv, ...]
Stage = tuple[Block, ...]


def stages_of(backbone: BackboneSettings) -> list[Stage] | None:
    """Stem and four stages; None for a backbone of one's own."""
    stem, strides = ((Conv(3, 64, 7, 2),),), backbone.strides
    match backbone.name:
        case "resnet50":
            return [stem, *_bottlenecks(strides)]
        case "resnext50_32x4d":
            return [stem, *_bottlenecks(strides, groups=32)]
        case "seresnext50_32x4d":
            return [stem, *_bottlenecks(strides, groups=32, excited=True)]
        case "resnet18":
            return [stem, *_basic_blocks()]
        case "tiny":
            return [((Conv(3, 16, 3, 2),),), *_tiny_blocks(strides)]
        case "efficientnet_lite0":
            return list(_lite_stages())
    return None


def _bottlenecks(strides: Sequence[int], *, groups: int = 1, excited: bool = False) -> Iterator[Stage]:
    """Of a ResNet-50, or of a ResNeXt-50 32x4d: in `groups`, twice as wide inside; `excited`: with SE-Net's gates."""
    inputs, before = 64, 4
    for width, blocks, stride in zip((64, 128, 256, 512), (3, 4, 6, 3), strides, strict=True):
        stage, inner, outputs = [], width if groups == 1 else 2 * width, 4 * width
        for number in range(blocks):
            shortcut = (Conv(inputs, outputs, 1, stride, kept=0),) if number == 0 else ()
            narrow = (Conv(inputs, inner, 1, before), Conv(inner, inner, 3, stride, groups=groups))
            gates = _gates(outputs) if excited else ()
            # A gate needs what it is multiplied with.
            stage.append((*shortcut, *narrow, *gates, Conv(inner, outputs, 1, stride, kept=1 + excited)))
            inputs, before = outputs, stride
        yield tuple(stage)


def _gates(channels: int) -> Block:
    """The two layers of squeeze and excitation: weights, and one number a channel and image, which is next to none."""
    narrow = channels // 16
    return Conv(channels, narrow, 1, ONE_PIXEL, kept=0), Conv(narrow, channels, 1, ONE_PIXEL, kept=0)


def _basic_blocks() -> Iterator[Stage]:
    inputs = 64
    for width, stride in ((64, 4), (128, 8), (256, 16), (512, 32)):
        shortcut = (Conv(inputs, width, 1, stride, kept=0),) if inputs != width else ()
        yield (
            (*shortcut, Conv(inputs, width, 3, stride), Conv(width, width, 3, stride)),
            (Conv(width, width, 3, stride), Conv(width, width, 3, stride)),
        )
        inputs = width


def _tiny_blocks(strides: Sequence[int]) -> Iterator[Stage]:
    inputs = 16
    for width, stride in zip((16, 32, 64, 64), strides, strict=True):
        yield ((Conv(inputs, width, 3, stride),), (Conv(width, width, 3, stride),))
        inputs = width


def _lite_stages() -> Iterator[Stage]:
    """Of EfficientNet-Lite0 (`megdet/model/efficientnet_lite.py`), whose first block belongs to the stem."""
    yield (Conv(3, 32, 3, 2),), (Conv(32, 32, 3, 2, groups=32), Conv(32, 16, 1, 2))
    inputs, before = 16, 2
    groups = (((24, 3, 4, 2),), ((40, 5, 8, 2),), ((80, 3, 16, 3), (112, 5, 16, 3)), ((192, 5, 32, 4), (320, 3, 32, 1)))
    for stage in groups:
        blocks: list[Block] = []
        for outputs, kernel, stride, count in stage:
            for _ in range(count):
                inner = 6 * inputs
                # Where it strides, backward also needs the padded map.
                wide = Conv(inputs, inner, 1, before, kept=1 + (stride > before))
                blocks.append((wide, Conv(inner, inner, kernel, stride, groups=inner), Conv(inner, outputs, 1, stride)))
                inputs, before = outputs, stride
        # The pyramid reads a scaled copy of the last block's output.
        *rest, last = blocks[-1]
        yield (*blocks[:-1], (*rest, replace(last, kept=2)))
