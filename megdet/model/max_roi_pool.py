"""RoI pooling (Girshick 2015) over a feature pyramid: torchvision's, the largest value of each bin."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import roi_pool

from megdet.model.level_pool import LevelPool
from megdet.model.wide import wide, wide_dtype


class MaxRoIPool(LevelPool):
    """The largest value of each bin of a region; a `megdet.model.roi_pool.RoIPool`."""

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        def largest(feature: Tensor, rois: Tensor, scale: float) -> Tensor:
            values: Tensor = roi_pool(wide(feature), rois.to(wide_dtype(feature.dtype)), self.resolution, scale)
            return values

        return self.by_level(largest, features, boxes, images, table.dtype)
