"""Which images make which batch, and the random numbers of each image: functions of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megdet.data.splitmix import hash_words


def padding_group(*, batch: int, bn_size: int) -> int:
    """How many consecutive images are padded to one size: one BN batch; a pair where BN is frozen."""
    if bn_size:
        return bn_size
    return 2 if batch % 2 == 0 else 1


def epoch_order(
    sizes: Sequence[tuple[int, int]], *, batch: int, group: int, seed: int, epoch: int, aspect_grouping: bool
) -> list[int]:
    """Indices of the images of one epoch, in training order; each at most once.

    With `aspect_grouping` every `group` consecutive images share an orientation (h > w or not), so that
    little is padded; only what is left of both orientations at the end forms mixed groups. The rest
    of N / batch is dropped. The order does not depend on `batch` otherwise, nor on any layout.
    """
    if batch % group:
        raise ValueError(f"group={group} must divide batch={batch}")
    shuffled = np.random.default_rng([seed, epoch]).permutation(len(sizes)).tolist()
    order = _group_by_orientation(shuffled, sizes, group) if aspect_grouping else shuffled
    return order[: len(order) // batch * batch]


def _group_by_orientation(shuffled: list[int], sizes: Sequence[tuple[int, int]], group: int) -> list[int]:
    order: list[int] = []
    waiting: dict[bool, list[int]] = {False: [], True: []}
    for index in shuffled:
        height, width = sizes[index]
        bucket = waiting[height > width]
        bucket.append(index)
        if len(bucket) == group:
            order += bucket
            bucket.clear()
    left = set(waiting[False] + waiting[True])
    return order + [index for index in shuffled if index in left]


def sampling_key(seed: int, epoch: int, image_id: int) -> int:
    """The seed in [0, 2^62) of what the detector samples for this image in this epoch."""
    return hash_words(1, seed, epoch, image_id) >> 2


def is_flipped(seed: int, epoch: int, image_id: int) -> bool:
    """Whether this image is mirrored in this epoch: true for half of them."""
    return bool(hash_words(2, seed, epoch, image_id) >> 63)
