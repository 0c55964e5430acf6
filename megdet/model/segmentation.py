"""Segmentation supervision (Mao et al. 2017; Shrivastava and Gupta 2016): a loss on the pyramid beside the others.

A small head says for every place of a map of stride 8 which class is there. A place is of the smallest object that it
lies in, else background. An object is where its box is, as in Zhang et al. 2018 (Detection with Enriched Semantics), or
where its mask is. The head serves training alone; what detects has no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megdet.data.batch import ImageBatch
from megdet.data.size import Size
from megdet.model.settings import SegmentationSettings, narrower
from megdet.model.wide import wide

STRIDE = 8
"""Of the map that is segmented."""
_OUTSIDE = -100
"""The target of a place that is padding: cross-entropy's own sign for what counts for nothing."""


class SegmentationHead(nn.Module):
    """A 3 x 3 convolution of each level, brought to one size and added, and a 1 x 1 convolution to the classes."""

    def __init__(
        self,
        levels: int,
        channels: int,
        settings: SegmentationSettings,
        *,
        num_classes: int,
        norm: Callable[[int], nn.Module] | None,
        by_masks: bool = False,
    ) -> None:
        """`channels` are the pyramid's; `settings.weight` is given. `by_masks`: masks are the targets, not boxes."""
        super().__init__()
        assert settings.weight is not None
        self.weight, self.by_masks = settings.weight, by_masks
        inner = narrower(settings.channels, channels)
        self.levels = nn.ModuleList(_layer(channels, inner, norm) for _ in range(levels))
        self.classify = nn.Conv2d(inner, num_classes + 1, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]  # it has one

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """[N, classes + 1, H / 8, W / 8], background first; `features` are the levels of strides 4, 8, ..."""
        height, width = features[0].shape[2] // 2, features[0].shape[3] // 2
        first, *others = (layer(feature) for layer, feature in zip(self.levels, features, strict=True))
        joined = F.avg_pool2d(first, 2)
        for other in others:
            joined = joined + F.interpolate(other, size=(height, width), mode="nearest")
        return self.classify(joined.relu())  # type: ignore[no-any-return]

    def loss(self, features: Sequence[Tensor], batch: ImageBatch) -> Tensor:
        """The weighted sum over images of each one's mean cross-entropy over its own places."""
        logits = wide(self.logits(features))
        grid = (logits.shape[2], logits.shape[3])
        targets = torch.stack([self._targets(batch, number, grid) for number in range(len(batch))])
        losses = F.cross_entropy(logits, targets, reduction="none", ignore_index=_OUTSIDE).sum((1, 2))
        # An image of up to 4 pixels' height or width has no place.
        return self.weight * (losses / (targets != _OUTSIDE).sum((1, 2)).clamp(min=1)).sum()

    def _targets(self, batch: ImageBatch, number: int, grid: Size) -> Tensor:
        if self.by_masks:
            assert batch.masks is not None, "as planned"
            return mask_targets_of(batch.masks[number], batch.labels[number], grid)
        return targets_of(batch.boxes[number], batch.labels[number], batch.sizes[number], grid)


def targets_of(boxes: Tensor, labels: Tensor, size: Size, grid: Size) -> Tensor:
    """int64 [H / 8, W / 8] of an image of `size`: the label of the smallest box around each place, 0, or outside."""
    y, x = ((torch.arange(extent, device=boxes.device) + 0.5) * STRIDE for extent in grid)
    in_image = (y < size[0])[:, None] & (x < size[1])
    in_y = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    in_x = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return _of_the_smallest(in_y[:, :, None] & in_x[:, None], area, labels, in_image)


def mask_targets_of(masks: Tensor, labels: Tensor, grid: Size) -> Tensor:
    """The same of masks, uint8 [n, h, w] in the image's own area."""
    half = STRIDE // 2  # a place's centre
    at_centres = masks[:, half::STRIDE, half::STRIDE]
    rows, columns = at_centres.shape[1:]
    padding = (0, grid[1] - columns, 0, grid[0] - rows)
    in_image = F.pad(masks.new_ones((rows, columns)), padding) > 0
    area = masks.sum((1, 2), dtype=torch.float32)
    return _of_the_smallest(F.pad(at_centres, padding) > 0, area, labels, in_image)


def _of_the_smallest(there: Tensor, area: Tensor, labels: Tensor, in_image: Tensor) -> Tensor:
    """Of the objects that are `there` (bool [n, H, W]) the label of the one with the smallest `area` [n]."""
    targets = torch.zeros_like(in_image, dtype=torch.int64)
    if len(labels):
        smallest, which = torch.where(there, area[:, None, None], torch.inf).min(dim=0)
        targets = torch.where(smallest.isfinite(), labels[which], targets)
    return targets.masked_fill(~in_image, _OUTSIDE)


def _layer(channels: int, outputs: int, norm: Callable[[int], nn.Module] | None) -> nn.Sequential:
    conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=norm is None)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, *([] if norm is None else [norm(outputs)]))
