from __future__ import annotations

import numpy as np
import pytest

from megdet.data.sampler import epoch_order, is_flipped, padding_group, sampling_key

LANDSCAPE, PORTRAIT = (480, 640), (640, 480)
SIZES = [PORTRAIT if index % 3 == 0 else LANDSCAPE for index in range(203)]


def order(**changes: int) -> list[int]:
    settings = {"batch": 16, "group": 8, "seed": 0, "epoch": 0} | changes
    return epoch_order(SIZES, aspect_grouping=True, **settings)


@pytest.mark.parametrize("aspect_grouping", [False, True])
def test_an_epoch_shows_each_image_once_less_a_rest_smaller_than_a_batch(aspect_grouping: bool) -> None:
    indices = epoch_order(SIZES, batch=16, group=4, seed=3, epoch=2, aspect_grouping=aspect_grouping)
    assert len(indices) == 203 // 16 * 16 == len(set(indices))
    assert set(indices) <= set(range(203))


def test_batches_16_and_64_see_the_same_order() -> None:
    assert order(batch=16)[:192] == order(batch=64)
    assert order(batch=16, group=16) != order(batch=16, group=8)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = [order(seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(indices) for indices in orders}) == 9
    assert orders == [order(seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]


def test_a_padding_group_has_one_orientation_but_for_what_is_left_at_the_end() -> None:
    indices = epoch_order(SIZES, batch=8, group=8, seed=0, epoch=1, aspect_grouping=True)
    mixed = [
        start for start in range(0, len(indices), 8) if len({SIZES[index] for index in indices[start : start + 8]}) > 1
    ]
    assert all(start >= len(indices) - 2 * 8 for start in mixed)
    plain = epoch_order(SIZES, batch=8, group=8, seed=0, epoch=1, aspect_grouping=False)
    assert sum(len({SIZES[index] for index in plain[start : start + 8]}) > 1 for start in range(0, 200, 8)) > 15


def test_the_shuffle_is_fair() -> None:
    """Over many epochs every image comes first, and early, as often as any other."""
    positions = np.array([np.argsort(epoch_order(SIZES[:40], batch=1, group=1, seed=1, epoch=e, aspect_grouping=True))
                          for e in range(400)])  # fmt: skip
    mean, deviation = 19.5, 40 / 12**0.5 / 400**0.5
    assert np.abs(positions.mean(axis=0) - mean).max() < 4 * deviation


def test_a_group_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="group=3 must divide batch=16"):
        order(group=3)


def test_padding_groups_are_bn_batches_and_pairs_where_bn_is_frozen() -> None:
    assert [padding_group(batch=16, bn_size=n) for n in (0, 2, 16)] == [2, 2, 16]
    assert padding_group(batch=5, bn_size=0) == 1


def test_sampling_keys_and_flips_are_random_and_independent() -> None:
    words = [(seed, epoch, image) for seed in range(4) for epoch in range(10) for image in range(250)]
    keys = np.array([sampling_key(*w) for w in words])
    flips = np.array([is_flipped(*w) for w in words])
    assert len(set(keys.tolist())) == len(words)
    assert keys.min() >= 0 and keys.max() < 2**62
    bits = (keys[:, None] >> np.arange(62)) & 1
    limit = 4.5 * 0.5 / len(words) ** 0.5
    assert np.abs(bits.mean(axis=0) - 0.5).max() < limit
    assert abs(flips.mean() - 0.5) < limit
    assert np.abs((bits == flips[:, None]).mean(axis=0) - 0.5).max() < limit
    assert sampling_key(1, 2, 3) != sampling_key(2, 1, 3) != sampling_key(3, 2, 1)
