"""The mask generator of the authors' talk: from pixels to a grid, convolutions, and back to pixels.

The talk draws four steps for a region: pooling (pixel to grid), convolutions, inverse pooling (grid to pixel), and
segmentation. It says no more, so all else is our reading. A mask head judges a region on its grid, as coarse for a
bus as for a bird. Here the grid's features return to the pixels of the pyramid that lie in the region, and each pixel
is judged:

- Pixels are those of the level below the region's own, where there is one: 28 to 56 along a square region's side.
- Inverse pooling gives a pixel the bilinear value of the grid at its place: what RoIAlign does, the other way round.
- A pixel's own features, from a narrow map of its level, are added; so edges can be sharper than the grid.
- A linear layer makes them the logits of each class. The loss compares each pixel with the object's mask there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megdet.data.batch import ImageBatch
from megdet.model.level_pool import LevelPool
from megdet.model.mask_branch import regions_of, share_of_image
from megdet.model.output import Detections, MatchedRegions
from megdet.model.roi_pool import build_roi_pool
from megdet.model.rows import RowSums, expanded, pyramid_rows, sum_rows
from megdet.model.settings import MaskSettings, RoIPoolSettings, narrower
from megdet.model.wide import wide


@dataclass(frozen=True)
class _Pixels:
    """The pixels under R regions, region by region, line by line; p in all."""

    region: Tensor
    """int64 [p]."""
    x: Tensor
    y: Tensor
    """int64 [p] each: where on its level."""
    row: Tensor
    """int64 [p]: which row of the levels' `pyramid_rows`."""
    begin: Tensor
    """int64 [R]: each region's first pixel."""
    left: Tensor
    top: Tensor
    width: Tensor
    height: Tensor
    """int64 [R] each: each region's pixels on its level."""
    stride: Tensor
    """[R], of the type of the boxes: of its level."""


class MaskGenerator(nn.Module):
    """A `megdet.model.mask_branch.MaskBranch`.

    The norm is on the levels' narrow maps. The convolutions over regions have none.
    """

    def __init__(
        self,
        channels: int,
        settings: MaskSettings,
        pool: RoIPoolSettings,
        *,
        strides: tuple[int, ...],
        num_classes: int,
        norm: Callable[[int], nn.Module] | None,
    ) -> None:
        """`channels` and `strides` are those of the pyramid's levels; `num_classes` counts no background."""
        super().__init__()
        self.strides, self.resolution = strides, settings.resolution
        on_grid, on_pixels = settings.channels or channels, narrower(None, channels)
        self.pool = build_roi_pool(replace(pool, resolution=settings.resolution), strides)
        self.own_level = LevelPool(strides=strides, resolution=settings.resolution)
        layers: list[nn.Module] = []
        for number in range(settings.layers):
            layers += [nn.Conv2d(on_grid if number else channels, on_grid, 3, padding=1), nn.ReLU(inplace=True)]
        self.grid = nn.Sequential(*layers, nn.Conv2d(on_grid, on_pixels, 1))
        self.pixels = nn.ModuleList(_narrow(channels, on_pixels, norm) for _ in strides)
        self.classify = nn.Linear(on_pixels, num_classes)
        for layer in (*self.grid, *(sequence[0] for sequence in self.pixels)):  # type: ignore[index]
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def loss(self, features: Sequence[Tensor], table: Tensor, regions: MatchedRegions, batch: ImageBatch) -> Tensor:
        """As `MaskBranch` says; of a region the mean binary cross-entropy over its pixels."""
        assert batch.masks is not None, "as planned"
        logits, pixels = self._logits(features, table, regions.boxes, regions.image, regions.labels)
        truth = _truth(batch.masks, regions, pixels, logits)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        # The mean over a region's pixels, and over an image's regions.
        weight = share_of_image(regions, len(batch), losses.dtype) / (pixels.width * pixels.height)
        return (losses * weight[pixels.region]).sum()

    @torch.no_grad()
    def detect(self, features: Sequence[Tensor], table: Tensor, found: Sequence[Detections]) -> list[Tensor]:
        """As `MaskBranch` says: the logits of the pixels, read at 4 x 4 points of each bin of the grid."""
        boxes, images, labels, counts = regions_of(found)
        logits, pixels = self._logits(features, table, boxes, images, labels)
        points = 4 * self.resolution
        masks = sum_rows(logits[:, None], _readings(boxes, pixels, points)).sigmoid()
        return list(masks.view(len(boxes), points, points).split(counts))

    def _logits(
        self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, _Pixels]:
        """[p] of each region's class at its pixels, float32 at least, and the pixels."""
        maps = [narrow(feature) for narrow, feature in zip(self.pixels, features, strict=True)]
        level = (self.own_level.levels(boxes) - 1).clamp(min=0)
        pixels = _pixels_under(boxes, images, level, maps, self.strides)
        grid = self.grid(self.pool(features, table, boxes, images).permute(0, 3, 1, 2))
        own = pyramid_rows(maps)
        both = torch.cat((own, pyramid_rows([grid]).to(own.dtype)))
        joined = sum_rows(both, _inverse_pooling(boxes, pixels, self.resolution, first_of_grid=len(own))).relu()
        logits = wide(self.classify(joined))
        return logits.gather(1, (labels - 1)[pixels.region, None]).squeeze(1), pixels


def _narrow(channels: int, outputs: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, 1, bias=norm is None)
    return nn.Sequential(conv, *([] if norm is None else [norm(outputs)]))


def _pixels_under(
    boxes: Tensor, images: Tensor, level: Tensor, maps: Sequence[Tensor], strides: Sequence[int]
) -> _Pixels:
    """Pixel i of a level is at i times its stride; those around a box's edges count too. `level` is int64 [R]."""
    device = boxes.device
    shapes = torch.tensor([(m.shape[0], m.shape[2], m.shape[3]) for m in maps], device=device)
    num_images, heights, widths = shapes.unbind(1)
    starts = F.pad((num_images * heights * widths).cumsum(0), (1, 0))[:-1]
    stride = torch.tensor(strides, dtype=boxes.dtype, device=device)[level]
    low, high = (boxes[:, :2] / stride[:, None]).floor().long(), (boxes[:, 2:] / stride[:, None]).ceil().long()
    last = torch.stack((widths, heights), dim=1)[level] - 1
    low = low.clamp(min=0).minimum(last)
    width, height = (high.minimum(last) - low + 1).clamp(min=1).unbind(1)
    left, top = low.unbind(1)
    area = width * height
    region, place = expanded(area)
    y, x = top[region] + place // width[region], left[region] + place % width[region]
    row = (starts[level] + images * heights[level] * widths[level])[region] + y * widths[level][region] + x
    return _Pixels(region, x, y, row, area.cumsum(0) - area, left, top, width, height, stride)


def _inverse_pooling(boxes: Tensor, pixels: _Pixels, resolution: int, *, first_of_grid: int) -> RowSums:
    """A row per pixel: its own row of the table, and its place on the grid of its region, whose rows follow."""
    region, one = pixels.region, torch.ones_like(pixels.row, dtype=boxes.dtype)
    side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6)
    columns, weights = [pixels.row], [one]
    along = []
    for axis, place in enumerate((pixels.x, pixels.y)):
        inside = (place.to(boxes.dtype) * pixels.stride[region] - boxes[region, axis]) / side[region, axis]
        along.append(_between(inside * resolution - 0.5, torch.full_like(place, resolution)))
    for (x, of_x), (y, of_y) in ((x, y) for x in along[0] for y in along[1]):
        columns.append(first_of_grid + (region * resolution + y) * resolution + x)
        weights.append(of_x * of_y)
    return _row_sums(columns, weights)


def _readings(boxes: Tensor, pixels: _Pixels, points: int) -> RowSums:
    """A row for each of points x points places within each box: bilinear among the pixels of its region."""
    region = torch.arange(len(boxes), device=boxes.device)[:, None, None]
    steps = (torch.arange(points, device=boxes.device) + 0.5) / points
    along = []
    for axis, first, number in ((0, pixels.left, pixels.width), (1, pixels.top, pixels.height)):
        at = boxes[:, axis, None] + steps * (boxes[:, axis + 2] - boxes[:, axis])[:, None]
        along.append(_between(at / pixels.stride[:, None] - first[:, None], number[:, None].expand_as(at)))
    columns, weights = [], []
    for (x, of_x), (y, of_y) in ((x, y) for x in along[0] for y in along[1]):
        place = pixels.begin[region] + y[:, :, None] * pixels.width[region] + x[:, None]
        columns.append(place.flatten())
        weights.append((of_y[:, :, None] * of_x[:, None]).flatten())
    return _row_sums(columns, weights)


def _between(at: Tensor, size: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two whole places around each of `at`, within 0..size - 1, and their bilinear weights."""
    at = at.clamp(min=0).minimum((size - 1).to(at.dtype))
    before = at.floor().long()
    after = (before + 1).minimum(size - 1)
    share = at - before
    return (before, 1 - share), (after, share)


def _row_sums(columns: Sequence[Tensor], weights: Sequence[Tensor]) -> RowSums:
    """Each row is the weighted sum of one entry of each of `columns`, all [rows]."""
    rows = len(columns[0])
    return RowSums(
        columns=torch.stack(list(columns), dim=1).flatten().to(torch.int32),
        offsets=(torch.arange(rows + 1, device=columns[0].device) * len(columns)).to(torch.int32),
        weights=torch.stack(list(weights), dim=1).flatten(),
    )


def _truth(masks: Sequence[Tensor], regions: MatchedRegions, pixels: _Pixels, like: Tensor) -> Tensor:
    """[p]: whether the object of its region is at a pixel; of masks that end there, at their last line or column."""
    image, object_ = regions.image[pixels.region], regions.object[pixels.region]
    y, x = ((place * pixels.stride[pixels.region]).long() for place in (pixels.y, pixels.x))
    truth = torch.zeros_like(like)
    for number, of_image in enumerate(masks):
        own = (image == number).nonzero().squeeze(1)
        if len(own):
            at_y, at_x = y[own].clamp(max=of_image.shape[1] - 1), x[own].clamp(max=of_image.shape[2] - 1)
            truth[own] = of_image[object_[own], at_y, at_x].to(like.dtype)
    return truth
