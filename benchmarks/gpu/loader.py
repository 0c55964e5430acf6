"""How many JPEGs a second the training loader reads and resizes, with as many workers as there are cores."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.speed import MLPERF
from megdet.data.batch import TrainingStep
from megdet.data.coco import CocoSplit
from megdet.data.files import coco_files
from megdet.data.generated import generate
from megdet.data.loader import TrainLoader

IMAGE_SIZE = 480
"""Shorter side of the files, as most of COCO's."""


def measure(bench: Bench) -> Iterator[Found]:
    images = 32 if bench.quick else 512
    batch = bench.many
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        generate("shapes", root, train_images=images, val_images=1, image_size=IMAGE_SIZE, seed=0)
        cores = len(os.sched_getaffinity(0))
        for workers, epochs in {1: 1, max(1, cores - 1): 4}.items():
            loader = _loader(bench, root, batch, workers)
            rate = (images * epochs - batch) / _seconds_after_the_first(
                step for epoch in range(epochs) for step in loader.epoch(epoch)
            )
            goal = MLPERF if bench.judges_speed and workers > 1 else None
            what = f"JPEGs of {IMAGE_SIZE} px read for {bench.image_size[0]} px, {workers} workers"
            yield Found(what, rate, "images/s", at_least=goal)


def _seconds_after_the_first(steps: Iterator[TrainingStep]) -> float:
    """The first step waits for the workers to start."""
    next(steps)
    began = time.perf_counter()
    for _ in steps:
        pass
    return time.perf_counter() - began


def _loader(bench: Bench, root: Path, batch: int, workers: int) -> TrainLoader:
    files = coco_files(root)
    min_size, max_size = bench.image_size
    return TrainLoader(
        CocoSplit(files.train_images, files.train_annotations),
        batch=batch,
        bn_size=batch,
        images_per_gpu=batch,
        accumulation=1,
        rank=0,
        world_size=1,
        seed=0,
        min_size=min_size,
        max_size=max_size,
        flip=True,
        aspect_grouping=True,
        max_bad_images=0,
        workers=workers,
        pin_memory=bench.on_gpu,
    )
