"""What the detector hands to the loop and to the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
