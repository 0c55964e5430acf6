"""Whether memory grows over many sizes of images, and whether it is what was predicted."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import alone, trainer_of
from benchmarks.sample import sample
from megdet.data.batch import ImageBatch


def measure(bench: Bench) -> Iterator[Found]:
    with alone(bench):
        yield from _over_sizes(bench)


def _over_sizes(bench: Bench) -> Iterator[Found]:
    """Reserved memory as sizes come and go: it must not creep up."""
    trainer = trainer_of(bench, images=bench.few, precision="bf16", frozen=False)
    batches = [_of_size(bench, number) for number in range(2 if bench.quick else 28)]
    done, reserved_gb = 0, {}
    for until in (2, 4) if bench.quick else (50, 300):
        trainer.steps(batches[step % len(batches)] for step in range(done, until))
        done = until
        if bench.on_gpu:
            reserved_gb[until] = torch.cuda.memory_reserved() / 2**30
            yield Found(f"reserved after {until} steps of {len(batches)} sizes", reserved_gb[until], "GB")
    if bench.on_gpu:
        first, last = reserved_gb.values()
        yield Found("growth of what is reserved", 100 * (last / first - 1), "%", at_most=5.0)


def _of_size(bench: Bench, number: int) -> ImageBatch:
    """The sizes in which COCO's images come: one side as it is, the other from a square to 5 : 3."""
    height, width = bench.image_size
    longer = height + (width - height) * (number // 2) // 14
    sides = (height, longer) if number % 2 else (longer, height)
    return sample(bench.few, *sides)
