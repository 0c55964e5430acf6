"""The context extractor of the authors' talk: what surrounds a region, on its own pyramid level and the two beside it.

A region of pyramid level x is enlarged and read at twice the resolution (14 x 14) from the levels x - 1, x and x + 1.
A convolution of stride 2 joins the three to what is added to the region's own features (7 x 7). The talk draws the
levels and the 14 x 14; how they are joined is ours, and so are the narrow maps of the levels that they are read from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from megdet.model.level_pool import LevelPool
from megdet.model.roi_pool import build_roi_pool
from megdet.model.rows import pyramid_rows
from megdet.model.settings import ContextSettings, RoIPoolSettings, narrower
from megdet.model.wide import wide

_STEPS = (-1, 0, 1)
"""From a region's own level to those it is read from."""


class ContextExtractor(nn.Module):
    """What surrounds each region, in the shape of its own features.

    The norm is on the levels' narrow maps. The convolution over regions has none, like the box head.
    """

    def __init__(
        self,
        channels: int,
        settings: ContextSettings,
        pool: RoIPoolSettings,
        *,
        strides: tuple[int, ...],
        norm: Callable[[int], nn.Module] | None,
    ) -> None:
        """`channels` and `strides` are those of the pyramid's levels; `settings.scale` is given."""
        super().__init__()
        assert settings.scale is not None
        self.scale = settings.scale
        inner = narrower(settings.channels, channels)
        self.narrow = nn.ModuleList(_narrow(channels, inner, norm) for _ in strides)
        self.join = nn.Conv2d(len(_STEPS) * inner, channels, 3, stride=2, padding=1)
        nn.init.kaiming_normal_(self.join.weight, nonlinearity="relu")
        nn.init.zeros_(self.join.bias)  # type: ignore[arg-type]  # it has one
        doubled = RoIPoolSettings(pool.name, 2 * pool.resolution, custom=pool.custom)
        self.pools = nn.ModuleList(build_roi_pool(doubled, (stride,)) for stride in strides)  # type: ignore[misc]
        self.own_level = LevelPool(strides=strides, resolution=doubled.resolution)

    def maps(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The narrow maps [N, c, H, W] of the levels, once in a pass."""
        return [narrow(feature) for narrow, feature in zip(self.narrow, features, strict=True)]

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        """[R, resolution, resolution, channels]; `boxes` and `images` as in `megdet.model.roi_pool.RoIPool`."""
        enlarged, own = enlarge(boxes, self.scale), self.own_level.levels(boxes)
        none = boxes.new_zeros((1, self.own_level.resolution, self.own_level.resolution, maps[0].shape[1]))
        read = [none]
        # Row 0 is of levels that are not there: below the first, above the last.
        place = torch.zeros((len(boxes), len(_STEPS)), dtype=torch.int64, device=boxes.device)
        rows = 1
        for level, (pool, feature) in enumerate(zip(self.pools, maps, strict=True)):
            region = ((own - level).abs() <= 1).nonzero().squeeze(1)
            place[region, level - own[region] + 1] = torch.arange(rows, rows + len(region), device=boxes.device)
            read.append(pool([feature], pyramid_rows([feature]), enlarged[region], images[region]).to(none))
            rows += len(region)
        around = torch.cat(read)[place].permute(0, 1, 4, 2, 3).flatten(1, 2)
        joined: Tensor = wide(self.join(around.contiguous(memory_format=torch.channels_last)))
        return joined.relu().permute(0, 2, 3, 1)


def enlarge(boxes: Tensor, scale: float) -> Tensor:
    """Boxes [R, 4] of `scale` times the width and height around the same centres; they may leave the image."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    return torch.cat((centre - half, centre + half), dim=1)


def _narrow(channels: int, outputs: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, 1, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, *([] if norm is None else [norm(outputs)]), nn.ReLU())
