"""RoI pooling (Girshick 2015) over a feature pyramid: torchvision's, the largest value of each bin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool
from torchvision.ops.poolers import LevelMapper

from megdet.model.wide import wide, wide_dtype


class MaxRoIPool(nn.Module):
    """Each region's features from the level that suits its size; a `megdet.model.roi_pool.RoIPool`."""

    def __init__(self, *, strides: Sequence[int], resolution: int) -> None:
        """`strides` are powers of two."""
        super().__init__()
        self.strides, self.resolution = tuple(strides), resolution
        self._mapper = LevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        levels = self._mapper([boxes])
        rois = torch.cat((images[:, None].to(boxes.dtype), boxes), dim=1)
        size = (len(boxes), features[0].shape[1], self.resolution, self.resolution)
        pooled = torch.zeros(size, dtype=table.dtype, device=table.device)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            chosen = (levels == level).nonzero().squeeze(1)
            values = roi_pool(wide(feature), rois[chosen].to(wide_dtype(feature.dtype)), self.resolution, 1.0 / stride)
            pooled = pooled.index_copy(0, chosen, values.to(table.dtype))
        return pooled.permute(0, 2, 3, 1).contiguous()
