"""SplitMix64 (Steele, Lea & Flood 2014; Vigna's splitmix64.c) as a counter-based source of random numbers.

A generator seeded with s gives `mix(s + GAMMA)`, `mix(s + 2 * GAMMA)`, …: output n is a function of s and n alone,
so nothing has to be drawn before it. Twice here, and held to each other by a test: on Python integers for the host,
and on int64 tensors for any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
"""What the state of a generator grows by from one output to the next."""
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1


def mix(state: int) -> int:
    """The output, in [0, 2^64), for a state: any integer, taken modulo 2^64."""
    x = state & _MASK
    x = ((x ^ (x >> 30)) * _MULTIPLIER_1) & _MASK
    x = ((x ^ (x >> 27)) * _MULTIPLIER_2) & _MASK
    return x ^ (x >> 31)


def hash_words(*words: int) -> int:
    """64 well mixed bits of a tuple of integers.

    The first output of a generator seeded with the last word plus the hash of those before it (0 where there are none).
    """
    state = 0
    for word in words:
        state = mix(state + word + GAMMA)
    return state


def first_outputs(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """int64 [seeds, count]: the first `count` outputs of the generator of each seed, read as two's complement."""
    start = torch.tensor([_signed(seed & _MASK) for seed in seeds], dtype=torch.int64, device=device)
    steps = torch.arange(1, count + 1, device=device) * _signed(GAMMA)
    return _mix_tensor(start[:, None] + steps)


def _mix_tensor(x: Tensor) -> Tensor:
    """`mix` on int64: products wrap around, and right shifts are made logical by a mask."""
    x = (x ^ _shift(x, 30)) * _signed(_MULTIPLIER_1)
    x = (x ^ _shift(x, 27)) * _signed(_MULTIPLIER_2)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >> 63 else x
