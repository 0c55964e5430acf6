"""A training step of ours and of torchvision's own Faster R-CNN and loop, on this machine's GPU, or its CPU.

    python -m benchmarks.train_step --model r50_fpn --size 800 --images 1
    python -m benchmarks.train_step --model r18_fpn --size 256 --images 4

Both train the same architecture from random weights, with trainable batch norm in the backbone and 512 RoIs an
image, on the same generated images, already of the size they are trained at. torchvision runs as its references do;
ours runs the real training loop with the environment that the launcher gives to ranks. Each variant is measured in
processes of its own, in turn, so that drifts of the machine meet all of them; times are medians over all steps but
the first two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import write_report
from benchmarks.sample import NUM_CLASSES, sample
from megdet.launchers.rank import NO_TRIM
from megdet.model.settings import BackboneSettings, ModelSettings

if TYPE_CHECKING:
    from megdet.data.batch import ImageBatch

WARM_UP_STEPS = 2
VARIANTS = ("torchvision", "fp32", "fp32_sublinear", "bf16")


def batch_of(images: int, size: int, *, masks: bool = False) -> ImageBatch:
    """4:3, as most of COCO."""
    return sample(images, size, -(-size * 4 // 3 // 32) * 32, masks=masks)


def torchvision_steps(backbone: str, size: int, images: int, steps: int) -> list[float]:
    """Seconds of each step of torchvision's model in the loop of its references."""
    import torch
    from torch import nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    from megdet.training.distributed import Ranks

    device = Ranks.from_environment().device
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name=backbone, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5)
    model = FasterRCNN(body, num_classes=NUM_CLASSES + 1, min_size=size, max_size=10 * size).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    batch = batch_of(images, size).to(device)
    floats = [image.float() / 255 for image in batch.images]
    targets = [{"boxes": b, "labels": t} for b, t in zip(batch.boxes, batch.labels, strict=True)]
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        loss = sum(model(floats, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # a GPU answers when it is done
        seconds.append(time.perf_counter() - began)
    return seconds


def our_steps(
    model: ModelSettings,
    *,
    size: int,
    images: int,
    steps: int,
    lr: float = 1e-3,
    bf16: bool = False,
    sublinear: bool = False,
) -> list[float]:
    """Seconds of each step of the real training loop, with BN over the images of the step."""
    import torch

    from megdet.data.batch import TrainingStep
    from megdet.model.detector import build_detector
    from megdet.model.norms import norm_layers
    from megdet.model.settings import EvaluationSettings
    from megdet.training.distributed import Ranks
    from megdet.training.divergence import LossWatch
    from megdet.training.loop import data_parallel, train_epoch
    from megdet.training.totals import EpochTotals

    seconds: list[float] = []
    batch = batch_of(images, size, masks=model.reads_masks)
    with Ranks.from_environment() as ranks:
        detector = build_detector(
            model,
            EvaluationSettings(),
            num_classes=NUM_CLASSES,
            norm=norm_layers(model, bn_size=images, group=None),
            sublinear=sublinear,
            seed=0,
        ).to(ranks.device)
        train_epoch(
            data_parallel(detector),
            (TrainingStep([[batch]]) for _ in range(steps)),
            optimizer=torch.optim.SGD(detector.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4),
            lr_at=lambda step: lr,
            first_step=0,
            batch=images,
            device=ranks.device,
            bf16=bf16,
            clip_grad_norm=None,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=lambda step, s: seconds.append(s),
        )
    return seconds


def peak_memory_mb() -> float:
    """The most that this process has used so far: allocated on its GPU where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant, in this process."""
    import torch
    import torchvision.models.detection  # noqa: F401  # loaded before memory is read, for every variant alike

    torch.set_num_threads(arguments.threads)
    loaded_mb = peak_memory_mb()
    backbone = {"r50_fpn": "resnet50", "r18_fpn": "resnet18"}[arguments.model]
    shape = {"size": arguments.size, "images": arguments.images, "steps": arguments.steps}
    if arguments.variant == "torchvision":
        seconds = torchvision_steps(backbone, **shape)
    else:
        model = ModelSettings(
            backbone=BackboneSettings(name=backbone, weights="none", frozen_stages=0), bn_in=["backbone"]
        )
        sublinear = arguments.variant.endswith("sublinear")
        seconds = our_steps(model, **shape, bf16=arguments.variant.startswith("bf16"), sublinear=sublinear)
    return {"seconds": seconds[WARM_UP_STEPS:], "peak_over_import_mb": peak_memory_mb() - loaded_mb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["r50_fpn", "r18_fpn"], default="r50_fpn")
    parser.add_argument("--size", type=int, default=800, help="shorter side in pixels")
    parser.add_argument("--images", type=int, default=1, help="in a step")
    parser.add_argument("--steps", type=int, default=5, help="of each process, the first two not counted")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each variant")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    memory_mb: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
            if variant != "torchvision":
                environment.update(NO_TRIM)
            command = [sys.executable, "-m", "benchmarks.train_step", "--variant", variant, "--model", arguments.model]
            for name in ("size", "images", "steps", "threads"):
                command += [f"--{name}", str(getattr(arguments, name))]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[variant] += found["seconds"]
            memory_mb[variant].append(found["peak_over_import_mb"])
    median_s = {variant: statistics.median(times) for variant, times in seconds.items()}
    peak_mb = {variant: statistics.median(values) for variant, values in memory_mb.items()}
    ratios = {f"torchvision/{variant}": median_s["torchvision"] / median_s[variant] for variant in VARIANTS[1:]}
    ratios["sublinear_time"] = median_s["fp32_sublinear"] / median_s["fp32"]
    ratios["sublinear_memory"] = peak_mb["fp32_sublinear"] / peak_mb["fp32"]
    print(f"{arguments.model}, {arguments.images} x {arguments.size} px, {arguments.threads} threads")
    for variant in VARIANTS:
        low, high = min(seconds[variant]), max(seconds[variant])
        print(f"{variant:16} {median_s[variant]:7.3f} s/step [{low:.3f}, {high:.3f}]   peak {peak_mb[variant]:6.0f} MB")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    import torch  # noqa: F401  # so that the report names the GPU

    report = write_report(
        f"train_step-{arguments.model}-{arguments.size}px-{arguments.images}",
        {
            "seconds": seconds,
            "median_s": median_s,
            "images_per_s": {variant: arguments.images / median for variant, median in median_s.items()},
            "peak_over_import_mb": peak_mb,
            "ratios": ratios,
        },
        arguments.out,
    )
    print(f"written to {report}")


if __name__ == "__main__":
    main()
