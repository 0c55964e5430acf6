"""The training loop: one optimizer step over `batch` images, however they are laid out."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from megdet.data.batch import ImageBatch
from megdet.model.cgbn import update_running_statistics
from megdet.training.distributed import sum_over_ranks
from megdet.training.divergence import LossWatch

LOSSES = ("rpn_objectness", "rpn_box", "roi_class", "roi_box")
SAMPLES = ("rpn_positive", "rpn_negative", "roi_positive", "roi_negative")


@dataclass(frozen=True)
class Step:
    """One optimizer step, summed over all ranks."""

    step: int
    """Optimizer steps done, this one included."""
    lr: float
    losses: dict[str, float]
    """Means over the images of the batch (Eq. 1)."""
    samples: dict[str, float]
    """How many anchors and RoIs were sampled."""
    grad_norm: float

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


@dataclass
class EpochTotals:
    """Sums over the steps of an epoch; goes into checkpoints, so an epoch resumed half-way reports all of itself."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    samples: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SAMPLES, 0.0))
    train_s: float = 0.0

    def add(self, step: Step, seconds: float) -> None:
        self.steps += 1
        self.loss += step.loss
        self.grad_norm += step.grad_norm
        self.train_s += seconds
        for name, count in step.samples.items():
            self.samples[name] += count


class Interrupted(Exception):
    """A rank was asked to stop; all ranks have finished the same step."""


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """`model` with gradients averaged over all ranks at the end of each step.

    Buffers are left alone: running statistics are made the same on all ranks once per step, not copied from rank 0.
    """
    # torch 2.13 renamed the switch and deprecated the old name.
    names = DistributedDataParallel.__init__.__code__.co_varnames
    switch = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {switch: False}
    # No device_ids: the model is where it belongs, and its input is moved by the loop.
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def train_epoch(
    model: DistributedDataParallel,
    steps: Iterable[list[list[ImageBatch]]],
    *,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int], float],
    first_step: int,
    batch: int,
    device: torch.device,
    bf16: bool,
    clip_grad_norm: float | None,
    watch: LossWatch,
    totals: EpochTotals,
    stop_requested: Callable[[], bool],
    on_step: Callable[[Step, float], None],
) -> None:
    """Train on `steps`: for each optimizer step, this rank's passes, each a list of image batches.

    `first_step` optimizer steps are already done. `totals` is added to. `on_step(step, seconds)` is called after each
    step, on every rank.

    Raises:
        Diverged: when `watch` says so; the weights are those before the step that showed it.
        Interrupted: after a step in which `stop_requested()` was true on any rank.
    """
    model.train()
    began = time.perf_counter()
    for number, passes in enumerate(steps, start=first_step):
        lr = lr_at(number)
        for group in optimizer.param_groups:
            group["lr"] = lr
        sums = accumulate_gradients(model, passes, batch=batch, device=device, bf16=bf16)
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm or float("inf"))
        # One small all-reduce carries the step's numbers and whether anybody was told to stop.
        report = torch.cat([sums, sums.new_full((1,), float(stop_requested()))])
        values = sum_over_ranks(report).tolist()
        step = Step(
            step=number + 1,
            lr=lr,
            losses={name: value / batch for name, value in zip(LOSSES, values[:4], strict=True)},
            samples=dict(zip(SAMPLES, values[4:8], strict=True)),
            grad_norm=grad_norm.item(),
        )
        watch.see(step.step, loss=step.loss, grad_norm=step.grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        update_running_statistics(model)
        seconds = time.perf_counter() - began
        began += seconds
        totals.add(step, seconds)
        on_step(step, seconds)
        if values[8]:
            raise Interrupted


def accumulate_gradients(
    model: DistributedDataParallel,
    passes: list[list[ImageBatch]],
    *,
    batch: int,
    device: torch.device,
    bf16: bool,
) -> Tensor:
    """The gradient of the mean loss over the `batch` images of all ranks, left in `.grad`, averaged over the ranks.

    Returns: float32 [8], this rank's sums of the four losses and the four sample counts.
    """
    sums = torch.zeros(8, device=device)
    image_batches = [images for one_pass in passes for images in one_pass]
    for number, images in enumerate(image_batches, start=1):
        # Gradients cross the GPUs once per step, with the last backward.
        with nullcontext() if number == len(image_batches) else model.no_sync():
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = model(images.to(device))
            losses = torch.stack([output.losses[name] for name in LOSSES])
            # DDP averages over ranks what is to be summed over them.
            (losses.sum() * (dist.get_world_size() / batch)).backward()
        sums += torch.cat([losses.detach(), output.samples])
    return sums


def peak_memory_gb(device: torch.device) -> float:
    """The most memory in use so far on the fullest rank: allocated on a GPU, resident on a CPU; 1 GB = 2^30 bytes."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.tensor(used / 2**30, device=device)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    return peak.item()
