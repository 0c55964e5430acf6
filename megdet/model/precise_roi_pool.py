"""Precise RoI Pooling (Jiang et al. 2018, IoU-Net, section 3.3): the exact mean of the bilinear surface over each bin.

RoIAlign reads a few points of a bin; this integrates all of it, so nothing is rounded and nothing is sampled, and
the result is differentiable in the boxes too. A bin's integral is a weighted sum of feature rows whose weights are
products of one integral along y and one along x, each in closed form. It runs as sparse row sums on CPUs and GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from megdet.model.level_pool import LevelPool
from megdet.model.rows import RowSums, expanded, sum_rows


class PreciseRoIPool(LevelPool):
    """Each region's features from the level that suits its size; a `megdet.model.roi_pool.RoIPool`.

    As in the authors' operator, pixel i of a level is at coordinate i, the surface falls to 0 within one pixel outside
    of the map, and a region without area gives 0. Levels are chosen as in RoIAlign (Lin et al. 2017, Eq. 1).
    """

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        levels = self.levels(boxes)
        shapes = torch.tensor([(f.shape[0], f.shape[2], f.shape[3]) for f in features], device=boxes.device)
        sums = _integrals(boxes, images, levels, shapes, self.strides, self.resolution, table.dtype)
        return sum_rows(table, sums).view(len(boxes), self.resolution, self.resolution, table.shape[1])


def _integrals(
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    shapes: Tensor,
    strides: Sequence[int],
    bins: int,
    dtype: torch.dtype,
) -> RowSums:
    """One row per box and bin: the mean of the bin's surface, as weights of table rows.

    `shapes` is int64 [levels, 3]: images, height and width of each level; `dtype` is the weights'.
    """
    num_images, heights, widths = shapes.unbind(1)
    starts = F.pad((num_images * heights * widths).cumsum(0), (1, 0))[:-1]
    # In float64, for the weights of a narrow bin are small differences; there are few of them.
    scaled = boxes.double() / torch.tensor(strides, dtype=torch.float64, device=boxes.device)[levels, None]
    height, width = heights[levels], widths[levels]
    first_y, num_y, y_weights = _axis_integrals(scaled[:, 1], scaled[:, 3], height, bins)
    first_x, num_x, x_weights = _axis_integrals(scaled[:, 0], scaled[:, 2], width, bins)

    # First every line of pixels under a bin, then every pixel of a line. A row of the sums is a bin of a box, (y, x).
    rows = torch.arange(len(boxes) * bins * bins, device=boxes.device)
    row_y, row_x = rows // bins, rows // (bins * bins) * bins + rows % bins
    lines = num_y.flatten()[row_y]
    row, y = expanded(lines)
    begin = ((starts[levels] + images * height * width)[:, None] + first_y * width[:, None]).flatten()[row_y]
    begin = begin[row] + y * width.repeat_interleave(bins * bins)[row] + first_x.flatten()[row_x][row]
    y_weight = y_weights.flatten()[row_y[row] * y_weights.shape[2] + y]
    line, x = expanded(num_x.flatten()[row_x][row])
    x_weight = x_weights.flatten()[(row_x[row] * x_weights.shape[2])[line] + x]
    return RowSums(
        columns=(begin[line] + x).to(torch.int32),
        offsets=F.pad((lines * num_x.flatten()[row_x]).cumsum(0), (1, 0)).to(torch.int32),
        weights=(y_weight[line] * x_weight).to(dtype),
    )


def _axis_integrals(low: Tensor, high: Tensor, size: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: each bin's first pixel and their number, int64 [R, bins], and weights float64 [R, bins, most].

    A weight is the integral of the pixel's hat function over the bin, divided by the bin's extent. `low` and `high`
    [R] bound the boxes in pixels of their level, `size` [R] is the level's extent.
    """
    extent = (high - low).clamp(min=0.0) / bins
    edges = low[:, None] + torch.arange(bins + 1, device=low.device) * extent[:, None]
    begin, end = edges[:, :-1], edges[:, 1:]
    last = size[:, None] - 1
    first = begin.detach().floor().long().clamp(min=0)
    number = (end.detach().ceil().long().minimum(last) - first + 1).clamp(min=0)
    most = int(number.max()) if len(number) else 0
    pixels = first[..., None] + torch.arange(most, device=low.device)
    covered = _hat_integral(end[..., None] - pixels) - _hat_integral(begin[..., None] - pixels)
    mean = covered / extent.clamp(min=torch.finfo(extent.dtype).tiny)[:, None, None]
    return first, number, mean


def _hat_integral(t: Tensor) -> Tensor:
    """The integral of max(0, 1 - |s|) over s up to `t`."""
    t = t.clamp(-1.0, 1.0)
    return 0.5 + t - 0.5 * t * t.abs()
