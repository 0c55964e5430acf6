"""The same trained weights under other BN statistics: what the paper could not tell apart.

    python -m megdet.studies.bn_study runs/<run_id> --images 512 --groups 1,4,16

Evaluates a run's last checkpoint with
- the running average that training left (what every table reports),
- precise statistics: the mean over the BN batches of N training images, with the weights as they are now (Wu and
  Johnson 2021, arXiv 2105.07576); BN batches are those of training, so bn_size images each,
- group statistics: each group of k evaluation images is normalised by its own statistics.

Runs in one process, on a GPU if there is one. Prints a table and leaves `bn_study.json` in the run folder and MLflow;
`python analysis/make_tables.py --table bn` shows it for all runs, averaged over seeds.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from megdet.data.batch import ImageBatch
from megdet.data.eval_loader import EvalLoader
from megdet.data.loader import TrainLoader
from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector
from megdet.planning.plan import Plan
from megdet.runs.run_files import BN_STUDY
from megdet.studies.studied_run import StudiedRun
from megdet.training.evaluate import detect
from megdet.training.metrics import coco_metrics

COLUMNS = ("mmAP", "AP50", "AP75", "mmAR")
IMAGES = 512
"""For precise statistics, unless asked otherwise or an epoch has fewer."""
ERRORS = Console(stderr=True)


class BNStudy:
    """One trained detector and the means to evaluate it under several statistics."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder has no checkpoint, or one of a training without BN."""
        run = StudiedRun(folder)
        if run.plan.config.bn_size == 0:
            raise UserError(f"{folder.name} was trained with frozen BN (bn_size=0): it has no statistics of its own")
        self.run = run
        self.plan, self.ranks, self.detector, self.bf16 = run.plan, run.ranks, run.detector, run.bf16
        self.train_loader, self.eval_loader = run.train_loader, run.eval_loader

    def running_average(self) -> dict[str, float | None]:
        """The COCO numbers in percent, as after training."""
        return self._score(self.detector, self.eval_loader, "running average")

    def images_of(self, images: int | None) -> int:
        """The number of training images, rounded up to whole optimizer steps; None: IMAGES, at most an epoch.

        UserError where there are not so many.
        """
        loader = self.train_loader
        most = loader.steps_per_epoch * loader.batch
        whole = -(-(min(IMAGES, most) if images is None else images) // loader.batch) * loader.batch
        if not 0 < whole <= most:
            raise UserError(f"--images {images}: takes 1 to {most}, the images of an epoch")
        return whole

    def precise(self, images: int) -> dict[str, float | None]:
        """With the mean statistics of `images` training images, a whole number of optimizer steps (`images_of`)."""
        with self._statistics_kept():
            estimate_statistics(
                self.detector, self.train_loader, images=images, device=self.ranks.device, bf16=self.bf16
            )
            return self._score(self.detector, self.eval_loader, f"precise, {images} images")

    def groups(self, size: int) -> dict[str, float | None]:
        """With statistics of each group of `size` evaluation images (fewer where the padded size changes)."""
        loader = _with_images_per_gpu(self.eval_loader, size, self.plan)
        with self._statistics_kept():
            return self._score(GroupNormalised(self.detector), loader, f"groups of {size}")

    def _score(self, model: torch.nn.Module, batches: EvalLoader, name: str) -> dict[str, float | None]:
        found = detect(
            model,
            track(batches, name, total=len(batches), console=ERRORS, transient=True),
            category_ids=self.eval_loader.split.category_ids,
            device=self.ranks.device,
            bf16=self.bf16,
            on_batch=lambda: None,
        )
        return coco_metrics(self.eval_loader.split.annotations, found.rows)

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        before = {name: value.clone() for name, value in self.detector.state_dict().items()}
        try:
            yield
        finally:
            self.detector.load_state_dict(before)
            for layer in _bn_layers(self.detector):
                layer.bn_size = self.plan.config.bn_size
                layer.take_step_statistics()


class GroupNormalised(torch.nn.Module):
    """The detector in evaluation, its BN layers normalising each batch by itself."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: ImageBatch) -> Any:
        layers = _bn_layers(self.detector)
        for layer in layers:
            layer.train()
            layer.bn_size = len(batch)
        found = self.detector(batch)
        for layer in layers:  # nobody takes them: those of 5,000 images would fill the memory
            layer.step_batches.clear()
        return found


@torch.no_grad()
def estimate_statistics(
    detector: Detector, loader: TrainLoader, *, images: int, device: torch.device, bf16: bool = False
) -> None:
    """Replace the running statistics by the mean over the BN batches of the first `images` training images.

    `bf16`: in the precision that the run trained and is scored in.
    """
    layers = _bn_layers(detector)
    totals: list[Tensor] = [torch.zeros((), device=device) for _ in layers]
    steps = images // loader.batch
    detector.train()
    epoch = islice(loader.epoch(0), steps)
    for step in track(epoch, "precise statistics", total=steps, console=ERRORS, transient=True):
        for batch in step.image_batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                detector(batch.to(device))
            totals = [total + layer.take_step_statistics() for total, layer in zip(totals, layers, strict=True)]
    for layer, total in zip(layers, totals, strict=True):
        mean, var = (total[:-1] / total[-1]).chunk(2)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)


def _bn_layers(detector: Detector) -> list[CrossGPUBatchNorm2d]:
    return [module for module in detector.modules() if isinstance(module, CrossGPUBatchNorm2d)]


def _with_images_per_gpu(loader: EvalLoader, images_per_gpu: int, plan: Plan) -> EvalLoader:
    data = plan.config.data
    return EvalLoader(
        loader.split,
        images_per_gpu=images_per_gpu,
        rank=0,
        world_size=1,
        min_size=data.min_size,
        max_size=data.max_size,
        workers=data.workers,
        pin_memory=loader.pin_memory,
        max_bad_images=data.max_bad_images,
    )


def group_sizes(text: str) -> list[int]:
    """`1,4,16` as numbers. UserError where it is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--groups {text}: takes numbers of images from 1 on with commas between, such as 1,4,16")
    return list(map(int, parts))


def main() -> int:
    """Print and record the table of one run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.studies.bn_study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--images", type=int, help=f"for precise statistics (default {IMAGES}, at most an epoch)")
    parser.add_argument("--groups", default="", help="sizes of groups of evaluation images, such as 1,4,16")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        sizes = group_sizes(arguments.groups)
        study = BNStudy(arguments.run)
        images = study.images_of(arguments.images)
        found = {"running average": study.running_average(), f"precise, {images} images": study.precise(images)}
        for size in sizes or [study.plan.config.bn_size]:
            found[f"groups of {size}"] = study.groups(size)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    study.run.record(BN_STUDY, found)
    table = Table("statistics", *COLUMNS, title=study.run.title)
    for name, metrics in found.items():
        table.add_row(name, *("-" if (value := metrics[column]) is None else f"{value:.1f}" for column in COLUMNS))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
