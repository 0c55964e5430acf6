"""What sharing BN statistics costs a whole training step: CGBN over all ranks beside frozen BN, on gloo ranks.

    python -m benchmarks.synced_step --ranks 2 --model r18_fpn --size 256 --images 2

`images` a rank in one pass, one thread a rank, the real training loop with its gradients averaged over the ranks. Both
detectors live in the same processes and train in turn, a step each; times are medians over all steps but the first two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.report import write_report
from benchmarks.sample import NUM_CLASSES, sample
from megdet.config.compose import compose
from megdet.data.batch import TrainingStep
from megdet.launchers.rank import NO_TRIM
from megdet.model.detector import build_detector
from megdet.model.norms import norm_layers
from megdet.model.settings import EvaluationSettings, ModelSettings
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.totals import EpochTotals

WARM_UP_STEPS = 2
LR = 1e-4


def rank_main(rank: int, ranks: int, folder: str, model: ModelSettings, size: int, images: int, steps: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    batch = sample(images, size, size * 4 // 3)
    trained, seconds = {}, {}
    for name, bn_size in (("frozen", 0), ("cgbn", ranks * images)):
        detector = build_detector(
            model,
            EvaluationSettings(),
            num_classes=NUM_CLASSES,
            norm=norm_layers(model, bn_size=bn_size, group=dist.group.WORLD if bn_size else None),
            sublinear=False,
            seed=0,
        )
        parameters = [p for p in detector.parameters() if p.requires_grad]
        trained[name] = data_parallel(detector), torch.optim.SGD(parameters, lr=LR, momentum=0.9)
        seconds[name] = list[float]()

    def train(name: str) -> None:
        parallel, optimizer = trained[name]
        dist.barrier()
        train_epoch(
            parallel,
            [TrainingStep([[batch]])],
            optimizer=optimizer,
            lr_at=lambda step: LR,
            first_step=0,
            batch=ranks * images,
            device=torch.device("cpu"),
            bf16=False,
            clip_grad_norm=1.0,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=lambda step, taken_s: seconds[name].append(taken_s),
        )

    for _ in range(steps):
        for name in trained:
            train(name)
    if rank == 0:
        torch.save(seconds, f"{folder}/seconds.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--model", default="r18_fpn")
    parser.add_argument("--size", type=int, default=256, help="shorter side in pixels")
    parser.add_argument("--images", type=int, default=2, help="of a rank")
    parser.add_argument("--steps", type=int, default=9, help="of each")
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    os.environ.update(NO_TRIM)
    weights = [] if arguments.model == "tiny" else ["model.backbone.weights=none", "model.backbone.frozen_stages=0"]
    model = compose([f"model={arguments.model}", *weights]).model
    with tempfile.TemporaryDirectory() as folder:
        asked = (arguments.ranks, folder, model, arguments.size, arguments.images, arguments.steps + WARM_UP_STEPS)
        spawn(rank_main, asked, nprocs=arguments.ranks)
        seconds = {name: times[WARM_UP_STEPS:] for name, times in torch.load(f"{folder}/seconds.pt").items()}
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(f"{name:8} {1e3 * median[name]:8.1f} ms [{1e3 * min(times):.1f}, {1e3 * max(times):.1f}]")
    pairs = zip(seconds["cgbn"], seconds["frozen"], strict=True)
    ratios = {
        "cgbn/frozen": statistics.median(cgbn / frozen for cgbn, frozen in pairs),
        "cgbn/frozen, fastest steps": min(seconds["cgbn"]) / min(seconds["frozen"]),
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    case = f"{arguments.model}-{arguments.size}px-{arguments.images}"
    report = write_report(
        f"synced_step-{arguments.ranks}ranks-{case}",
        {"ranks": arguments.ranks, "median_s": median, "times_s": seconds, "ratios": ratios},
        arguments.out,
    )
    print(f"written to {report}")


if __name__ == "__main__":
    main()
