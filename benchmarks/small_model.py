"""Images/s of the `tiny` detector in the real training loop on one core: what a laptop and the studies train.

    python -m benchmarks.small_model --sizes 64,128

Batch 16 in one pass, generated images from memory, frozen BN and BN over 16 images, in turn; medians over all steps
but the first two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.report import write_report
from megdet.launchers.rank import NO_TRIM

BATCH = 16
WARM_UP_STEPS = 2


def step_seconds(size: int, bn_size: int, steps: int, folder: Path) -> list[float]:
    """Seconds of each step of the real training loop, with images that were read before."""
    import torch

    from megdet.config.compose import compose
    from megdet.data.data_set import read_data
    from megdet.data.generated import generate
    from megdet.planning.plan import make_plan
    from megdet.training.assemble import detector_of, loaders_of, optimizer_of
    from megdet.training.distributed import Ranks
    from megdet.training.divergence import LossWatch
    from megdet.training.loop import data_parallel, train_epoch
    from megdet.training.totals import EpochTotals

    root = folder / str(size)
    images = steps * BATCH
    if not root.exists():
        generate("shapes", root, train_images=images, val_images=1, image_size=size, seed=0)
    torch.set_num_threads(1)
    plan = make_plan(
        compose(
            [
                "experiment=tiny", f"bn_size={bn_size}", "gpus=1", f"images_per_gpu={BATCH}",
                "cluster.gpus_per_node=1", f"data.root={root}",
                f"data.min_size={size}", f"data.max_size={2 * size}", f"data.train_images={images}",
                "data.val_images=1",
            ]
        )
    )  # fmt: skip
    seconds: list[float] = []
    with Ranks(0, 0, 1, torch.device("cpu")) as ranks:
        detector = detector_of(plan, ranks)
        loader, _ = loaders_of(plan, ranks, read_data(plan.config.data, masks=plan.config.model.reads_masks))
        train_epoch(
            data_parallel(detector),
            list(loader.epoch(0)),
            optimizer=optimizer_of(plan, detector),
            lr_at=lambda step: 1e-3,
            first_step=0,
            batch=BATCH,
            device=ranks.device,
            bf16=False,
            clip_grad_norm=plan.config.optimizer.clip_grad_norm,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: False,
            on_step=lambda step, s: seconds.append(s),
        )
    return seconds[WARM_UP_STEPS:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64,128", help="shorter sides in pixels")
    parser.add_argument("--steps", type=int, default=8, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="the JSON file; default results/benchmarks/")
    arguments = parser.parse_args()
    os.environ.update(NO_TRIM, OMP_NUM_THREADS="1")
    cases = [(int(size), bn_size) for size in arguments.sizes.split(",") for bn_size in (0, BATCH)]
    seconds: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for case in cases:
                seconds[case] += step_seconds(*case, arguments.steps, Path(folder))
    images_per_s = {}
    for (size, bn_size), times in seconds.items():
        name = f"{size}px-{'frozen' if bn_size == 0 else f'bn{bn_size}'}"
        images_per_s[name] = BATCH / statistics.median(times)
        print(f"{name:14} {images_per_s[name]:7.1f} images/s [{BATCH / max(times):.1f}, {BATCH / min(times):.1f}]")
    write_report("small_model", {"batch": BATCH, "images_per_s": images_per_s}, arguments.out)


if __name__ == "__main__":
    main()
