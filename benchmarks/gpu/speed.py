"""Images a second and memory of a training step, in each precision and with each BN, beside torchvision's own loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Iterator

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import LR, alone, batch_of, forget_peak, peak_gb, trainer_of, wait
from benchmarks.sample import NUM_CLASSES

MLPERF = 86.0
"""Images/s of MLPerf's Mask R-CNN on an A100: what bf16 should reach."""


def measure(bench: Bench) -> Iterator[Found]:
    with alone(bench):
        for images in (bench.few, bench.many):
            peer = yield from _torchvision(bench, images)
            for precision in ("bf16", "tf32", "fp32"):
                rates = {}
                for frozen in (True, False):
                    rates[frozen] = yield from _ours(bench, images, precision, frozen)
                yield Found(
                    f"{precision}, {images} images: time with CGBN / with frozen BN",
                    rates[True] / rates[False],
                    "x",
                    at_most=1.1 if bench.judges_speed else None,
                )
                if precision == "bf16":
                    yield Found(
                        f"bf16, {images} images: torchvision's time with AMP / ours",
                        rates[True] / peer,
                        "x",
                        at_least=2.0 if bench.judges_speed else None,
                    )


def _ours(bench: Bench, images: int, precision: str, frozen: bool) -> Generator[Found, None, float]:
    forget_peak(bench)
    warm_up, counted = (1, 2) if bench.quick else (4, 8)
    trainer = trainer_of(bench, images=images, precision=precision, frozen=frozen)
    seconds = trainer.steps([batch_of(bench, images)] * (warm_up + counted))
    rate = images / statistics.median(seconds[warm_up:])
    what = f"{precision}, {images} images, {'frozen BN' if frozen else f'CGBN over {images}'}"
    goal = MLPERF if bench.judges_speed and precision == "bf16" and images == bench.many else None
    yield Found(what, rate, "images/s", at_least=goal)
    if bench.on_gpu:
        yield Found(f"{what}: peak", peak_gb(bench), "GB")
    return rate


def _torchvision(bench: Bench, images: int) -> Generator[Found, None, float]:
    """Its model in the loop of its references, with their AMP: float16 and a scaler on a GPU, bfloat16 on a CPU."""
    forget_peak(bench)
    warm_up, counted = (1, 2) if bench.quick else (4, 8)
    name = bench.model().backbone.name
    height, width = bench.image_size
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=3)
    model = FasterRCNN(body, num_classes=NUM_CLASSES + 1, min_size=height, max_size=width).to(bench.device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=bench.on_gpu)
    half = torch.float16 if bench.on_gpu else torch.bfloat16
    batch = batch_of(bench, images)
    floats = [image[:, :height, :width].float() / 255 for image in batch.images]
    targets = [{"boxes": b, "labels": t} for b, t in zip(batch.boxes, batch.labels, strict=True)]
    seconds = []
    for _ in range(warm_up + counted):
        began = time.perf_counter()
        on_device = [image.to(bench.device, non_blocking=True) for image in floats]
        there = [{key: value.to(bench.device) for key, value in target.items()} for target in targets]
        with torch.autocast(bench.device.type, half):
            loss = sum(model(on_device, there).values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()
        wait(bench)
        seconds.append(time.perf_counter() - began)
    rate = images / statistics.median(seconds[warm_up:])
    yield Found(f"torchvision with AMP, {images} images, frozen BN", rate, "images/s")
    if bench.on_gpu:
        yield Found(f"torchvision with AMP, {images} images: peak", peak_gb(bench), "GB")
    return rate
