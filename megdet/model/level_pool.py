"""What RoI poolings over a feature pyramid share: the level of each region (Lin et al. 2017, Eq. 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops.poolers import LevelMapper


class LevelPool(nn.Module):
    """Reads each region from the level that suits its size; the base of each `megdet.model.roi_pool.RoIPool` here."""

    def __init__(self, *, strides: Sequence[int], resolution: int) -> None:
        """`strides` are powers of two; which level a region has depends on the first and on how many there are."""
        super().__init__()
        self.strides, self.resolution = tuple(strides), resolution
        first = int(math.log2(strides[0]))
        self._mapper = LevelMapper(first, first + len(strides) - 1)

    def levels(self, boxes: Tensor) -> Tensor:
        """int64 [R]: the position of each box's level."""
        levels: Tensor = self._mapper([boxes])
        return levels

    def by_level(
        self,
        operator: Callable[[Tensor, Tensor, float], Tensor],
        features: Sequence[Tensor],
        boxes: Tensor,
        images: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """[R, resolution, resolution, C]: `operator(feature, rois [n, 5], scale)` of each level's regions."""
        levels, rois = self.levels(boxes), torch.cat((images[:, None].to(boxes.dtype), boxes), dim=1)
        size = (len(boxes), features[0].shape[1], self.resolution, self.resolution)
        pooled = torch.zeros(size, dtype=dtype, device=boxes.device)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = (levels == level).nonzero().squeeze(1)
            pooled = pooled.index_copy(0, chosen, operator(feature, rois[chosen], 1.0 / stride).to(dtype))
        return pooled.permute(0, 2, 3, 1).contiguous()
