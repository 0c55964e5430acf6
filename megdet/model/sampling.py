"""Balanced samples of positives and negatives whose randomness is counted, not drawn.

Candidate j of an image gets the key hash(image key, stream, j); the candidates with the smallest keys are
the sample. Nothing touches a random generator, so what is sampled for an image depends on its own key and
candidates alone: not on its batch mates, the layout, the device, or what ran before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from megdet.data.splitmix import GAMMA, first_outputs, mix

IGNORED = -1
"""Label of a candidate that is never sampled; 0 is a negative, from 1 on a positive."""

_LAST = torch.iinfo(torch.int64).max


class Stream(IntEnum):
    """What is sampled: each has its own random numbers."""

    RPN = 1
    ROI = 2


@dataclass(frozen=True)
class Samples:
    """The sampled candidates of N images, images in order; within an image positives come first."""

    image: Tensor
    """int64 [n]: which image."""
    candidate: Tensor
    """int64 [n]: which of the image's candidates."""
    positive: Tensor
    """bool [n]."""
    weight: Tensor
    """float32 [n]: 1 / samples of the sample's image, so that a weighted sum is a sum of per-image means."""


def candidate_keys(image_keys: Sequence[int], stream: Stream, num_candidates: int, device: torch.device) -> Tensor:
    """int64 [images, candidates]: uniform 64-bit keys, distinct within an image, the same on every device."""
    return first_outputs([mix(key + stream * GAMMA) for key in image_keys], num_candidates, device)


def sample_balanced(
    labels: Tensor, *, image_keys: Sequence[int], stream: Stream, num_samples: int, positive_fraction: float
) -> Samples:
    """Up to `num_samples` candidates of each image, at most `positive_fraction` of them positives.

    `labels` is [images, candidates]: from 1 on positive, 0 negative, below 0 never sampled. Missing positives
    are made up for by negatives, missing negatives by nothing, as in Faster R-CNN.
    """
    keys = candidate_keys(image_keys, stream, labels.shape[1], labels.device)
    positives, is_positive = _smallest(keys, labels >= 1, int(num_samples * positive_fraction))
    num_positives = is_positive.sum(dim=1, keepdim=True)
    negatives, is_negative = _smallest(keys, labels == 0, num_samples)
    rank = torch.arange(negatives.shape[1], device=labels.device)
    is_negative &= rank < num_samples - num_positives

    chosen = torch.cat((is_positive, is_negative), dim=1)
    image, place = chosen.nonzero(as_tuple=True)
    per_image = chosen.sum(dim=1).to(torch.float32)
    return Samples(
        image=image,
        candidate=torch.cat((positives, negatives), dim=1)[image, place],
        positive=place < positives.shape[1],
        weight=1.0 / per_image[image],
    )


def samples_of(chosen: Sequence[Tensor], labels: Tensor) -> Samples:
    """The candidates chosen of each image, int64 [n_i], as samples; `labels` as in `sample_balanced`."""
    counts = torch.tensor([len(candidates) for candidates in chosen], device=labels.device)
    image, candidate = torch.repeat_interleave(counts), torch.cat(list(chosen))
    positive = labels[image, candidate] >= 1
    # Positives first, the order within both kept.
    order = (2 * image + (~positive).to(torch.int64)).argsort(stable=True)
    return Samples(image, candidate[order], positive[order], weight=1.0 / counts.to(torch.float32)[image])


def _smallest(keys: Tensor, eligible: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Per row, the eligible places of the `count` smallest keys in key order, and which of them exist."""
    count = min(count, keys.shape[1])
    found = keys.masked_fill(~eligible, _LAST).topk(count, dim=1, largest=False, sorted=True)
    return found.indices, found.values != _LAST
