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
class MatchedRegions:
    """The P positives among the sampled regions, with the objects that they are matched to."""

    boxes: Tensor
    """float32 [P, 4], as in `SampledRegions`."""
    image: Tensor
    """int64 [P]: which image of the pass, ascending."""
    object: Tensor
    """int64 [P]: which of the image's objects."""
    labels: Tensor
    """int64 [P], from 1 on: the object's class."""


@dataclass(frozen=True)
class TrainingOutput:
    """What the detector says of one forward pass in training.

    Every pass on every rank must report the same names in the same order, with 0 where there is
    nothing. Whatever is reported reaches journal and MLflow under its name.
    """

    losses: dict[str, Tensor]
    """Scalars, each the SUM over the images of the pass of that image's own loss l(x_i), itself a
    mean over the image's own samples (paper Eq. 1). Summed over all passes and GPUs and divided by
    the batch they are the loss of the step."""
    counts: dict[str, Tensor]
    """Scalars without gradient, each a sum over the images of the pass, such as how many anchors were
    sampled. For a pair `X_positive`, `X_negative` the ratio is recorded too."""
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
    masks: Tensor | None = None
    """float32 [n, m, m], 0..1, where the detector has masks: how likely each part of a box is to be of the object."""
