"""Mask R-CNN's mask head (He et al. 2017): convolutions over each region's features, and a mask for each class.

Its layers, and their names in a state dict, are torchvision's. The loss is each image's own: a mean over its positives,
where torchvision has one mean over those of all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from megdet.data.batch import ImageBatch
from megdet.model.mask_branch import regions_of, share_of_image
from megdet.model.output import Detections, MatchedRegions
from megdet.model.roi_pool import build_roi_pool
from megdet.model.settings import MaskSettings, RoIPoolSettings
from megdet.model.wide import wide


class MaskHead(nn.Module):
    """A `megdet.model.mask_branch.MaskBranch`. Masks are twice as fine as the bins that a region is read as.

    No layer has a norm: all of them run once per region.
    """

    def __init__(
        self,
        channels: int,
        settings: MaskSettings,
        pool: RoIPoolSettings,
        *,
        strides: tuple[int, ...],
        num_classes: int,
    ) -> None:
        """`channels` and `strides` are those of the pyramid's levels; `num_classes` counts no background."""
        super().__init__()
        inner = settings.channels or channels
        self.pool = build_roi_pool(replace(pool, resolution=settings.resolution), strides)
        self.head = MaskRCNNHeads(channels, [inner] * settings.layers, dilation=1)
        self.predictor = MaskRCNNPredictor(inner, inner, num_classes + 1)

    def loss(self, features: Sequence[Tensor], table: Tensor, regions: MatchedRegions, batch: ImageBatch) -> Tensor:
        """As `MaskBranch` says; of a region the mean binary cross-entropy over the bins of its object's class."""
        assert batch.masks is not None, "as planned"
        logits = self._logits(features, table, regions.boxes, regions.image, regions.labels)
        targets = [
            _projected(masks, regions.boxes[own], regions.object[own], logits)
            for masks, own in zip(batch.masks, _by_image(regions.image, len(batch)), strict=True)
        ]
        losses = F.binary_cross_entropy_with_logits(logits, torch.cat(targets), reduction="none").mean((1, 2))
        return (losses * share_of_image(regions, len(batch), losses.dtype)).sum()

    @torch.no_grad()
    def detect(self, features: Sequence[Tensor], table: Tensor, found: Sequence[Detections]) -> list[Tensor]:
        """As `MaskBranch` says."""
        boxes, images, labels, counts = regions_of(found)
        masks = self._logits(features, table, boxes, images, labels).sigmoid()
        return list(masks.split(counts))

    def _logits(
        self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor, labels: Tensor
    ) -> Tensor:
        """[R, m, m] of each region's class, float32 at least."""
        pooled = self.pool(features, table, boxes, images).permute(0, 3, 1, 2)  # channels last in memory
        logits = self.predictor(self.head(pooled))
        return wide(logits[torch.arange(len(labels), device=labels.device), labels])


def _by_image(image: Tensor, num_images: int) -> list[Tensor]:
    """Where each image's regions are, int64 [P_i] each."""
    return [(image == number).nonzero().squeeze(1) for number in range(num_images)]


def _projected(masks: Tensor, boxes: Tensor, objects: Tensor, like: Tensor) -> Tensor:
    """The masks of an image's `objects` within `boxes`, [P, m, m] of the type and size of `like`.

    They are what RoIAlign reads of the masks, as in torchvision's `project_masks_on_boxes`: 0..1, not rounded.
    """
    rois = torch.cat((objects[:, None], boxes), dim=1).to(like.dtype)
    if not len(rois):
        return like.new_zeros((0, *like.shape[1:]))
    projected: Tensor = roi_align(masks[:, None].to(like.dtype), rois, like.shape[-1])
    return projected[:, 0]
