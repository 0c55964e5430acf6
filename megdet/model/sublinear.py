"""Sublinear memory (paper section 3.3, Chen et al. 2016): recompute activations instead of keeping them.

Plain activation checkpointing runs every batch norm of a checkpointed part twice, so running statistics are
updated twice and a cross-GPU layer issues its collective again in the middle of backward, where a rank may
wait for ever. Here the first pass writes each layer's batch statistics on a tape and the second reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor
from torch.utils.checkpoint import checkpoint


class BatchStatistics(NamedTuple):
    """What normalises one BN batch, on the device of its input; float32 for inputs of up to 32 bits."""

    mean: Tensor
    """[C]."""
    var: Tensor
    """[C], biased (divided by the number of pixels)."""
    pixels: Tensor
    """float64 scalar: how many are behind the statistics, over all GPUs of the group."""


class StatisticsTape:
    """The batch statistics of one checkpointed part, in the order its layers asked for them."""

    def __init__(self) -> None:
        self._entries: list[BatchStatistics] = []
        self._cursor: int | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The first pass: layers compute their statistics and leave them here."""
        self._entries.clear()
        self._cursor = None
        with _as_current(self):
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """A recomputation: layers take what the first pass left, without collectives or updates."""
        self._cursor = 0
        with _as_current(self):
            yield

    @property
    def is_replaying(self) -> bool:
        return self._cursor is not None

    def append(self, statistics: BatchStatistics) -> None:
        self._entries.append(statistics)

    def next(self) -> BatchStatistics:
        assert self._cursor is not None
        statistics = self._entries[self._cursor]
        self._cursor += 1
        return statistics


# Per thread, because autograd recomputes CUDA graphs in threads of its own.
_local = threading.local()


def current_tape() -> StatisticsTape | None:
    """The tape of the checkpointed part that is running in this thread, if any."""
    return getattr(_local, "tape", None)


@contextmanager
def _as_current(tape: StatisticsTape) -> Iterator[None]:
    outer = current_tape()
    _local.tape = tape
    try:
        yield
    finally:
        _local.tape = outer


def checkpointed(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """`function(*args)`, keeping only `args` for backward and recomputing the rest there.

    Exact with `CrossGPUBatchNorm2d`: gradients and running statistics are bit for bit those of
    `function(*args)`, and no collective is issued in the recomputation. `function` must not draw from the
    global random generator.
    """
    tape = StatisticsTape()
    output = checkpoint(
        function,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (tape.recording(), tape.replaying()),
    )
    assert isinstance(output, Tensor)
    return output
