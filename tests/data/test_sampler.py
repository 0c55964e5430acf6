from __future__ import annotations

import numpy as np
import pytest

from megdet.data.images import resized_size
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


def test_padding_groups_are_whole_bn_batches_of_up_to_16_images_together() -> None:
    assert [padding_group(batch=256, bn_size=n) for n in (0, 1, 2, 16, 32, 256)] == [16, 16, 16, 16, 32, 256]
    assert [padding_group(batch=n, bn_size=0) for n in (1, 5, 16, 24, 34, 37)] == [1, 5, 16, 12, 2, 1]
    assert [padding_group(batch=24, bn_size=n) for n in (0, 2, 3, 8, 12, 24)] == [12, 12, 12, 8, 12, 24]


def coco_like_sizes() -> list[tuple[int, int]]:
    """The usual sizes of COCO's images: 640 pixels long, most of them 4 : 3 or 3 : 2."""
    draw = np.random.default_rng(0)
    short = draw.choice([480, 427, 426, 425, 360, 500, 640], 4000, p=[0.52, 0.14, 0.13, 0.1, 0.05, 0.03, 0.03])
    return [
        (640, s) if upright else (s, 640) for s, upright in zip(short.tolist(), draw.random(4000) < 0.25, strict=True)
    ]


@pytest.mark.parametrize("group", [2, 16, 64])
def test_groups_of_alike_aspect_ratio_waste_little_on_padding(group: int) -> None:
    sizes, resized = coco_like_sizes(), {}
    for size in set(sizes):
        resized[size] = resized_size(size, min_size=800, max_size=1333)
    padded = taken = 0
    order = epoch_order(sizes, batch=64, group=group, seed=0, epoch=0, aspect_grouping=True)
    for start in range(0, len(order), group):
        of_group = [resized[sizes[index]] for index in order[start : start + group]]
        padded += group * max(h for h, _ in of_group) * max(w for _, w in of_group)
        taken += sum(h * w for h, w in of_group)
    assert padded < 1.05 * taken


def test_an_epochs_end_mixes_only_what_is_left_of_every_aspect_ratio() -> None:
    sizes = [(480, 640)] * 19 + [(427, 640)] * 18 + [(640, 480)] * 17 + [(640, 427)] * 6
    order = epoch_order(sizes, batch=4, group=4, seed=0, epoch=0, aspect_grouping=True)
    groups = [[sizes[index] for index in order[start : start + 4]] for start in range(0, len(order), 4)]
    assert [len(set(group)) for group in groups[:13]] == [1] * 13  # 16 + 16 + 16 + 4 images
    assert {h > w for h, w in groups[13]} == {False}  # 3 + 2 landscape ones are left, and 1 + 2 upright ones
    assert {h > w for h, w in groups[14]} == {False, True}
    assert len(order) == len(sizes) == len(set(order))


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
