"""Whether memory grows over many sizes of images, and whether it is what was predicted."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import alone, batch_of, forget_peak, peak_gb, trainer_of
from benchmarks.sample import NUM_CLASSES, sample
from megdet.config.schema import Config
from megdet.data.batch import ImageBatch
from megdet.model.settings import OFFLOAD
from megdet.planning.memory import memory_gb

SUBLINEAR = {False: "", True: ", sublinear", OFFLOAD: ", sublinear=offload"}


def measure(bench: Bench) -> Iterator[Found]:
    with alone(bench):
        for images in (bench.few, bench.many):
            for precision in ("fp32", "bf16"):
                for frozen, sublinear in ((True, False), (False, False), (False, True), (False, OFFLOAD)):
                    yield from _predicted(bench, images, precision, frozen=frozen, sublinear=sublinear)
        yield from _over_sizes(bench)


def _predicted(bench: Bench, images: int, precision: str, *, frozen: bool, sublinear: bool | str) -> Iterator[Found]:
    """The peak of two steps beside the prediction of the plan table."""
    forget_peak(bench)
    trainer = trainer_of(bench, images=images, precision=precision, frozen=frozen, sublinear=sublinear)
    trainer.steps([batch_of(bench, images)] * 2)
    config = Config(bn_size=0 if frozen else images, precision=precision, model=bench.model())
    config.data.min_size, config.data.max_size = bench.image_size
    config.data.num_classes = NUM_CLASSES
    predicted = memory_gb(config, images=images, sublinear=sublinear)
    assert predicted is not None
    what = f"{precision}, {images} images, {'frozen BN' if frozen else 'CGBN'}{SUBLINEAR[sublinear]}"
    yield Found(f"{what}: predicted", predicted, "GB")
    if measured := peak_gb(bench):
        yield Found(f"{what}: off by", 100 * abs(predicted / measured - 1), "%", at_most=15.0)


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
