"""What predicts masks, the mask head or the mask generator: its interface, and what both need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from megdet.data.batch import ImageBatch
from megdet.model.output import Detections, MatchedRegions


class MaskBranch(Protocol):
    """A torch module that predicts a mask for each region, class by class."""

    def loss(self, features: Sequence[Tensor], table: Tensor, regions: MatchedRegions, batch: ImageBatch) -> Tensor:
        """The sum over images of each one's own loss: a mean over its positive regions.

        `features` and `table` are what regions are pooled from, as in `megdet.model.roi_pool.RoIPool`.
        """

    def detect(self, features: Sequence[Tensor], table: Tensor, found: Sequence[Detections]) -> list[Tensor]:
        """float32 [n_i, m, m], 0..1, of each image's detections, whose boxes are in pixels of the resized images."""


def share_of_image(regions: MatchedRegions, num_images: int, dtype: torch.dtype) -> Tensor:
    """[P]: 1 / regions of each region's image, so that a weighted sum over regions is a sum of means over images."""
    per_image = torch.bincount(regions.image, minlength=num_images)
    return 1.0 / per_image[regions.image].to(dtype)


def regions_of(found: Sequence[Detections]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Boxes, image and label of all detections of a pass, and how many each image has."""
    counts = [len(image.boxes) for image in found]
    boxes, labels = (torch.cat([getattr(image, name) for image in found]) for name in ("boxes", "labels"))
    return boxes, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(boxes.device), labels, counts
