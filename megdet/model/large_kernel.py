"""Large kernels: global convolutions (Peng et al. 2017) on the pyramid levels that both heads read.

A dense k x k kernel is too dear at the sizes that cover an object. Two branches, k x 1 then 1 x k and the other way
round, see the same k x k pixels at a cost that grows with k alone; their sum is added to the level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from megdet.model.settings import LargeKernelSettings, narrower
from megdet.model.sublinear import checkpointed


class GlobalConvolution(nn.Module):
    """Both branches of one map [N, C, H, W], to the same shape; nothing between the two convolutions of a branch."""

    def __init__(self, channels: int, settings: LargeKernelSettings, norm: Callable[[int], nn.Module] | None) -> None:
        """`settings.size` is given."""
        super().__init__()
        assert settings.size is not None
        tall, wide = (settings.size, 1), (1, settings.size)
        between, has_bias = narrower(settings.channels, channels), norm is None
        self.tall_first = _branch(channels, between, tall, wide, bias=has_bias)
        self.wide_first = _branch(channels, between, wide, tall, bias=has_bias)
        self.norm = norm(channels) if norm is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.norm(self.tall_first(x) + self.wide_first(x))
        return x + summed


class LargeKernels(nn.Module):
    """A global convolution of its own for each level; with `sublinear`, what is inside is recomputed in backward."""

    def __init__(
        self,
        levels: int,
        channels: int,
        settings: LargeKernelSettings,
        *,
        norm: Callable[[int], nn.Module] | None,
        sublinear: bool,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(GlobalConvolution(channels, settings, norm) for _ in range(levels))
        self.sublinear = sublinear

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        recomputed = self.sublinear and self.training
        pairs = zip(self.levels, levels, strict=True)
        return [checkpointed(module, level) if recomputed else module(level) for module, level in pairs]


def _branch(
    channels: int, between: int, first: tuple[int, int], second: tuple[int, int], *, bias: bool
) -> nn.Sequential:
    layers = []
    for inputs, outputs, size in ((channels, between, first), (between, channels, second)):
        conv = nn.Conv2d(inputs, outputs, size, padding=(size[0] // 2, size[1] // 2), bias=bias)
        # As in the pyramid: activations keep their size.
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        layers.append(conv)
    return nn.Sequential(*layers)
