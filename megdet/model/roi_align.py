"""RoIAlign over a feature pyramid (He et al. 2017; levels as in Lin et al. 2017, Eq. 1).

The arithmetic is torchvision's (`sampling_ratio=2`). On a CPU it runs as sums of rows, several
times faster than torchvision's kernel, whose backward uses one thread; elsewhere torchvision's kernel is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from megdet.model.level_pool import LevelPool
from megdet.model.rows import RowSums, sum_rows
from megdet.model.wide import wide_dtype

_SAMPLES = 2  # sampling points per bin and axis


class RoIAlign(LevelPool):
    """Each region's features from the level that suits its size; a `megdet.model.roi_pool.RoIPool`."""

    def __init__(self, *, strides: Sequence[int], resolution: int, aligned: bool = False) -> None:
        """`aligned`: pixel i covers i to i + 1, and boxes may be smaller than one (detectron2's ROIAlignV2).

        Without it, as in torchvision's Faster R-CNN, features are read half a pixel below and right of the box.
        """
        super().__init__(strides=strides, resolution=resolution)
        self.aligned = aligned

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        if _fast_as_sums(table.device):
            levels = self.levels(boxes)
            shapes = [(f.shape[0], f.shape[2], f.shape[3]) for f in features]
            sums = _bilinear_sums(boxes, images, levels, shapes, self.strides, self.resolution, self.aligned)
            return sum_rows(table, sums).view(len(boxes), self.resolution, self.resolution, table.shape[1])

        def pooled(feature: Tensor, rois: Tensor, scale: float) -> Tensor:
            values: Tensor = roi_align(feature, rois, self.resolution, scale, _SAMPLES, self.aligned)
            return values

        return self.by_level(pooled, features, boxes, images, wide_dtype(features[0].dtype))


def _fast_as_sums(device: torch.device) -> bool:
    return device.type == "cpu"


def _bilinear_sums(
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    shapes: Sequence[tuple[int, int, int]],
    strides: Sequence[int],
    resolution: int,
    aligned: bool,
) -> RowSums:
    """One row per box and bin: the mean of the bin's bilinear samples, as weights of table rows."""
    num_images, heights, widths = torch.tensor(shapes).unbind(1)
    starts = F.pad((num_images * heights * widths).cumsum(0), (1, 0))[:-1]
    scaled = boxes * (1.0 / torch.tensor(strides, dtype=torch.float32))[levels, None]
    least = 1.0
    if aligned:
        scaled, least = scaled - 0.5, 0.0
    height, width = heights[levels], widths[levels]
    y, y_weight = _axis_weights(scaled[:, 1], scaled[:, 3], height, resolution, least)
    x, x_weight = _axis_weights(scaled[:, 0], scaled[:, 2], width, resolution, least)

    first = (starts[levels] + images * height * width)[:, None, None]
    line = (first + y * width[:, None, None]).to(torch.int32)  # [R, bins, 4]
    columns = line[:, :, None, :, None] + x.to(torch.int32)[:, None, :, None, :]  # [R, bins, bins, 4, 4]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]

    # Without samples outside the map and merged corners.
    num_y, num_x = y_weight.count_nonzero(2), x_weight.count_nonzero(2)
    ends = (num_y[:, :, None] * num_x[:, None, :]).flatten().cumsum(0, dtype=torch.int32)
    needed = weights.flatten().nonzero().squeeze(1)
    return RowSums(
        columns=columns.flatten().index_select(0, needed),
        offsets=F.pad(ends, (1, 0)),
        weights=weights.flatten().index_select(0, needed),
    )


def _axis_weights(low: Tensor, high: Tensor, size: Tensor, bins: int, least: float) -> tuple[Tensor, Tensor]:
    """Along one axis: int64 places and float32 weights [R, bins, 4] of the mean of two samples per bin.

    `low` and `high` [R] bound the boxes in pixels of their level, and count as `least` apart or more; `size` [R] is
    the level's extent.
    """
    bin_size = (high - low).clamp(min=least)[:, None] / bins
    bin_start = low[:, None] + torch.arange(bins) * bin_size
    offsets = (torch.arange(_SAMPLES) + 0.5) * bin_size[..., None] / _SAMPLES  # [R, 1, 2]
    points = bin_start[..., None] + offsets  # [R, bins, 2]
    last = (size - 1)[:, None, None]
    inside = ((points >= -1.0) & (points <= size[:, None, None])).to(torch.float32) / _SAMPLES
    points = points.clamp(min=0.0)
    before = points.to(torch.int64).minimum(last)
    after = (before + 1).minimum(last)
    after_weight = torch.where(before == last, 0.0, points - before) * inside
    before_weight = inside - after_weight

    # Neighbouring samples often share corners; merged, a box costs about half as many rows.
    first, second = before.unbind(2)
    same, adjacent = first == second, (first + 1 == second)
    shared = torch.where(same | adjacent, before_weight[..., 1], 0.0)
    weights = torch.stack(
        (
            before_weight[..., 0] + torch.where(same, shared, 0.0),
            after_weight[..., 0] + torch.where(adjacent, shared, 0.0) + torch.where(same, after_weight[..., 1], 0.0),
            before_weight[..., 1] - shared,
            torch.where(same, 0.0, after_weight[..., 1]),
        ),
        dim=2,
    )
    places = torch.stack((first, after[..., 0], second, after[..., 1]), dim=2)
    return places, weights
