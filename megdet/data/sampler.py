"""The order of images, and their random numbers: functions of seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from megdet.data.size import PADDED_TOGETHER
from megdet.data.splitmix import hash_words

ASPECTS_PER_OCTAVE = 6
"""Kinds of aspect ratio between 1 : 1 and 2 : 1."""


def padding_group(*, batch: int, bn_size: int) -> int:
    """How many consecutive images are padded to one size.

    One BN batch; where that is small, or BN is frozen, as many whole ones as make up to `PADDED_TOGETHER` images and
    divide `batch`: a pass of a GPU is then one forward call, and the size still a function of the experiment alone.
    """
    least = max(bn_size, 1)
    groups = range(least, max(least, PADDED_TOGETHER) + 1, least)
    return max(group for group in groups if batch % group == 0)


def epoch_order(
    sizes: Sequence[tuple[int, int]], *, batch: int, group: int, seed: int, epoch: int, aspect_grouping: bool
) -> list[int]:
    """Indices of the images of one epoch, in training order; each at most once.

    With `aspect_grouping` every `group` consecutive images have nearly the same aspect ratio, within a sixth of an
    octave, so that little is padded; what is left over at the end is grouped by orientation (h > w or not), and only
    what is left of both orientations is mixed. The rest of N / batch is dropped. The order does not depend on
    `batch` otherwise, nor on any layout.
    """
    if batch % group:
        raise ValueError(f"group={group} must divide batch={batch}")
    shuffled: list[int] = np.random.default_rng([seed, epoch]).permutation(len(sizes)).tolist()
    order = shuffled
    if aspect_grouping:
        alike, left = _grouped(shuffled, [_aspect(size) for size in sizes], group)
        of_orientation, left = _grouped(left, [height > width for height, width in sizes], group)
        order = alike + of_orientation + left
    return order[: len(order) // batch * batch]


def _aspect(size: tuple[int, int]) -> int:
    """The kind of aspect ratio; 4 : 3 and 3 : 2, the most usual, are in the middle of theirs."""
    height, width = size
    return math.floor(ASPECTS_PER_OCTAVE * math.log2(width / height))


def _grouped(shuffled: Sequence[int], kinds: Sequence[int], group: int) -> tuple[list[int], list[int]]:
    """Groups of one kind, each from when it is full on, and what is left over, in the order of `shuffled`."""
    order: list[int] = []
    waiting: dict[int, list[int]] = {}
    for index in shuffled:
        of_kind = waiting.setdefault(kinds[index], [])
        of_kind.append(index)
        if len(of_kind) == group:
            order += of_kind
            of_kind.clear()
    left = {index for of_kind in waiting.values() for index in of_kind}
    return order, [index for index in shuffled if index in left]


def sampling_key(seed: int, epoch: int, image_id: int) -> int:
    """The seed in [0, 2^62) of what the detector samples for this image in this epoch."""
    return hash_words(1, seed, epoch, image_id) >> 2


def is_flipped(seed: int, epoch: int, image_id: int) -> bool:
    """Whether this image is mirrored in this epoch: true for half of them."""
    return bool(hash_words(2, seed, epoch, image_id) >> 63)


def drawn_scale(seed: int, epoch: int, group: int, scales: int) -> int:
    """Which of so many `scales` the images of a padding group have, the `group`-th of an epoch."""
    return hash_words(3, seed, epoch, group) % scales if scales > 1 else 0
