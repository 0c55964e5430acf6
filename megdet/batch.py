"""What travels between the data, the detector and the evaluation: tensors and plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass
class ImageBatch:
    """The images of one forward pass on one GPU: N images padded to one size.

    Coordinates are pixels of the resized images. In evaluation `boxes` and `labels` are empty lists.
    """

    images: Tensor
    """uint8 [N, 3, H, W], RGB, H and W multiples of 32; 0 outside each image's own area."""
    sizes: list[Size]
    """Each image's own area inside the padded tensor."""
    boxes: list[Tensor]
    """float32 [n_i, 4] as (x1, y1, x2, y2); objects only, crowd regions left out."""
    labels: list[Tensor]
    """int64 [n_i], 1..num_classes (0 is background)."""
    image_ids: list[int]
    original_sizes: list[Size]
    """As stored in the annotation file."""
    sampling_keys: list[int]
    """Seeds of what the detector samples for each image: a function of seed, epoch and image id alone."""

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device) -> ImageBatch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            boxes=[b.to(device, non_blocking=True) for b in self.boxes],
            labels=[t.to(device, non_blocking=True) for t in self.labels],
        )


@dataclass(frozen=True)
class SampledRegions:
    """What the second stage is trained on in one forward pass: R proposals and objects, without gradient."""

    boxes: Tensor
    """float32 [R, 4] as (x1, y1, x2, y2) in pixels of the resized images."""
    image: Tensor
    """int64 [R]: which image of the pass."""
    positive: Tensor
    """bool [R]: matched to an object; the others are background."""


@dataclass(frozen=True)
class TrainingOutput:
    """What the detector says of one forward pass in training."""

    losses: dict[str, Tensor]
    """`rpn_objectness`, `rpn_box`, `roi_class`, `roi_box`: scalars, each the SUM over the images of the
    pass of that image's own loss l(x_i), itself a mean over the image's own samples (paper Eq. 1).
    Divided by the batch and summed over all passes and GPUs they are the loss of the step."""
    samples: Tensor
    """float32 [4], no gradient: RPN positives, RPN negatives, RoI positives, RoI negatives of the pass."""
    regions: SampledRegions


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first."""

    boxes: Tensor
    """float32 [n, 4] as (x1, y1, x2, y2) in pixels of the ORIGINAL image."""
    scores: Tensor
    """float32 [n]."""
    labels: Tensor
    """int64 [n], 1..num_classes."""
