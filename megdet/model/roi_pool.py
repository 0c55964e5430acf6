"""RoI pooling: how the features of a region are read from the pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from megdet.model.roi_align import RoIAlign
from megdet.model.rows import pyramid_rows
from megdet.model.settings import STRIDES, RoIPoolSettings
from megdet.settings.own_part import failed_trial, make, misfit


class RoIPool(Protocol):
    """What a RoI pooling of one's own is: a torch module that is called so.

    `_target_` is called with `strides` (of the levels: powers of two, the last two equal if the backbone is atrous),
    `resolution` and the user's arguments.
    """

    def __call__(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        """[R, resolution, resolution, C] of the dtype of the boxes, differentiable in the features.

        `features` are the levels [N, C, H, W]; `table` has the same as `megdet.model.rows.pyramid_rows` (further levels
        may follow), for who reads them sparsely; `boxes` are float32 [R, 4] in image pixels (float64
        in `megdet.check_equivalence`), `images` int64 [R] the
        image of each. What a region gets must not depend on what else is pooled.
        """


def build_roi_pool(settings: RoIPoolSettings, strides: tuple[int, ...] = STRIDES) -> RoIPool:
    """The RoI pooling that is asked for, of levels with `strides`. Raises UserError for an own one that is none."""
    if settings.custom is None:
        return {"align": RoIAlign}[settings.name](strides=strides, resolution=settings.resolution)
    key = "model.roi_pool.custom"
    pool = make(key, settings.custom, strides=strides, resolution=settings.resolution)
    if not isinstance(pool, nn.Module):
        raise misfit(key, settings.custom, f"it makes {type(pool).__name__}, and not a torch module")
    features = [torch.zeros(1, 8, 64 // stride, 64 // stride) for stride in strides]
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [8.0, 8.0, 60.0, 50.0]])
    try:
        with torch.no_grad():
            pooled = pool(features, pyramid_rows(features), boxes, torch.zeros(2, dtype=torch.int64))
        found = (tuple(pooled.shape), pooled.dtype)
    except Exception as error:
        raise failed_trial(key, settings.custom, error) from error
    expected = ((2, settings.resolution, settings.resolution, 8), torch.float32)
    if found != expected:
        raise misfit(key, settings.custom, f"two regions of 8 channels give {found}, and not {expected}")
    return pool
