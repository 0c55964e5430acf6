"""The training loop: one optimizer step over `batch` images, however they are laid out."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from megdet.data.batch import ImageBatch, TrainingStep
from megdet.model.cgbn import update_running_statistics
from megdet.model.output import TrainingOutput
from megdet.training.agvm import AGVM
from megdet.training.average import WeightAverage
from megdet.training.divergence import LossWatch
from megdet.training.halves import Gradients, gradients_by_half, halves_of
from megdet.training.named_sums import NamedSums
from megdet.training.noise_scale import NoiseMeter, NoiseSample
from megdet.training.totals import EpochTotals, Step


class Interrupted(Exception):
    """A rank was asked to stop; all ranks have finished the same step."""


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """`model` with gradients averaged over all ranks at the end of each step.

    Buffers are left alone: running statistics are made the same on all ranks once per step, not copied from rank 0.
    """
    # torch 2.13 renamed the switch and deprecated the old name.
    known = inspect.signature(DistributedDataParallel).parameters
    switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {switch: False}
    # No device_ids: the model is where it belongs, and its input is moved by the loop.
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def train_epoch(
    model: DistributedDataParallel,
    steps: Iterable[TrainingStep],
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
    noise: NoiseMeter | None = None,
    average: WeightAverage | None = None,
) -> None:
    """Train on this rank's share of `steps`, each of `batch` images over all ranks.

    `first_step` optimizer steps are already done. `totals` is added to. `on_step(step, seconds)` is called after each
    step, on every rank. `noise` measures the noise scale of some of the steps; `average` follows the weights.

    Raises:
        Diverged: when `watch` says so; the weights are those before the step that showed it.
        Interrupted: after a step in which `stop_requested()` was true on any rank.
        ValueError: where the detector's losses and counts have not the same names in every pass on every rank.
    """
    model.train()
    sums = NamedSums()
    began = time.perf_counter()
    for number, training_step in enumerate(steps, start=first_step):
        lr = lr_at(number)
        for group in optimizer.param_groups:
            group["lr"] = lr
        samples: Mapping[str, NoiseSample] = {}
        if isinstance(optimizer, AGVM) and optimizer.compares_at(number):
            halves = accumulate_by_half(model, training_step, sums, batch=batch, device=device, bf16=bf16)
            optimizer.compare(*halves)
        else:
            measured = noise.of_step(number) if noise else None
            after_pass = measured.pass_is_over if measured else None
            accumulate_gradients(
                model, training_step, sums, batch=batch, device=device, bf16=bf16, after_pass=after_pass
            )
            samples = measured.end() if measured else {}
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm or float("inf"))
        report = sums.over_ranks(stop_requested=stop_requested())
        step = Step(
            step=number + 1,
            lr=lr,
            losses={name: value / batch for name, value in report.losses.items()},
            counts=report.counts,
            grad_norm=grad_norm.item(),
            noise=samples,
            lr_factors=optimizer.factors if isinstance(optimizer, AGVM) else {},
        )
        watch.see(step.step, loss=step.loss, grad_norm=step.grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        update_running_statistics(model)
        if average is not None:
            average.update(step.step)
        seconds = time.perf_counter() - began
        began += seconds
        totals.add(step, seconds)
        on_step(step, seconds)
        if report.stop_requested:
            raise Interrupted


def accumulate_gradients(
    model: DistributedDataParallel,
    step: TrainingStep,
    sums: NamedSums,
    *,
    batch: int,
    device: torch.device,
    bf16: bool,
    after_pass: Callable[[], None] | None = None,
) -> None:
    """Leave the gradient of the mean loss over the `batch` images of all ranks in `.grad`, the same on all ranks.

    What the detector reports is added to `sums`, and `after_pass()` is called after the backwards of a pass: one, or
    several where its images are padded to different sizes.
    """
    last = step.image_batches[-1]
    # DDP averages over ranks what is to be summed over them.
    scale = dist.get_world_size() / batch
    for image_batches in step.passes:
        for images in image_batches:
            # Gradients cross the GPUs once per step, with the last backward.
            with nullcontext() if images is last else model.no_sync():
                sums.add(_backward(model, images, scale=scale, device=device, bf16=bf16))
        if after_pass:
            after_pass()


def accumulate_by_half(
    model: DistributedDataParallel,
    step: TrainingStep,
    sums: NamedSums,
    *,
    batch: int,
    device: torch.device,
    bf16: bool,
) -> tuple[Gradients, Gradients]:
    """As `accumulate_gradients`, but to the last bits; returns what each half of the batch gave to the gradient.

    The gradients of each half cross the GPUs when all of it is done, so this takes longer.
    """

    # Past DDP, whose own collectives (it arranges its buckets in the forward after the first step) would meet those of
    # ranks that have nothing of a half.
    detector = model.module

    def backward(images: ImageBatch) -> None:
        sums.add(_backward(detector, images, scale=1 / batch, device=device, bf16=bf16))

    halves = halves_of(step, batch=batch, rank=dist.get_rank(), world_size=dist.get_world_size())
    return gradients_by_half(detector, halves, backward=backward)


def _backward(
    model: nn.Module, images: ImageBatch, *, scale: float, device: torch.device, bf16: bool
) -> TrainingOutput:
    """Forward and backward of the images of one pass; their loss, times `scale`, adds to the gradient."""
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        output: TrainingOutput = model(images.to(device))
    loss = torch.stack(list(output.losses.values())).sum()
    (loss * scale).backward()
    return output
