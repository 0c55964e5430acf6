"""Both forms of SplitMix64 against the published generator, and against each other."""

from __future__ import annotations

import random

import pytest
import torch

from megdet.data.splitmix import GAMMA, first_outputs, hash_words, mix

CPU = torch.device("cpu")
PUBLISHED = {
    0: [0xE220A8397B1DCDAF],
    1234567: [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ],
}
"""What the published generator (Vigna, splitmix64.c) gives for a seed, from its first output on."""


@pytest.mark.parametrize("seed", PUBLISHED)
def test_a_seeds_outputs_are_the_published_ones_on_integers_and_on_tensors(seed: int) -> None:
    outputs = PUBLISHED[seed]
    assert [mix(seed + number * GAMMA) for number in range(1, len(outputs) + 1)] == outputs
    assert [value % 2**64 for value in first_outputs([seed], len(outputs), CPU)[0].tolist()] == outputs


@pytest.mark.parametrize("seed", PUBLISHED)
def test_a_word_hashes_to_the_first_output_of_its_seed_and_each_further_word_seeds_anew(seed: int) -> None:
    assert hash_words(seed) == PUBLISHED[seed][0]
    # The n-th output is the first one of a seed n - 1 steps further on.
    assert [hash_words(seed + step * GAMMA) for step in range(len(PUBLISHED[seed]))] == PUBLISHED[seed]
    assert hash_words(7, seed) == hash_words(hash_words(7) + seed) != hash_words(seed, 7)


def test_integers_and_tensors_agree_also_on_seeds_of_64_bits_and_negative_ones() -> None:
    drawn = random.Random(0)
    seeds = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63), *(drawn.getrandbits(64) for _ in range(200))]
    expected = [[mix(seed + number * GAMMA) for number in range(1, 9)] for seed in seeds]
    found = first_outputs(seeds, 8, CPU)
    assert found.dtype == torch.int64
    assert [[value % 2**64 for value in row] for row in found.tolist()] == expected
