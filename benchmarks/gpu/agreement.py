"""Whether a GPU computes what a CPU does, and the same thing twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import (
    Trainer,
    alone,
    batch_of,
    detector_of,
    forget_peak,
    largest_difference,
    peak_gb,
    trainer_of,
    weights_of,
)  # fmt: skip
from megdet.data.batch import ImageBatch
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.settings import OFFLOAD
from megdet.training.precision import use_precision

STEPS = 5


def measure(bench: Bench) -> Iterator[Found]:
    use_precision("fp32")
    with alone(bench):
        yield from _cgbn_through_collectives(bench)
        yield from _cpu_against_gpu(bench)
        yield from _twice(bench)
        yield from _sublinear(bench)


def _cgbn_through_collectives(bench: Bench) -> Iterator[Found]:
    """One layer, its statistics sent round a group of one, against autograd in float64."""
    shape = (2, 16, 12, 20) if bench.quick else (16, 64, 200, 336)
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(shape, generator=generator) + 1
    dy = torch.randn(shape, generator=generator)
    group = dist.new_group([0])
    assert isinstance(group, dist.ProcessGroup)
    layer = CrossGPUBatchNorm2d(shape[1], bn_size=shape[0], group=group).to(bench.device)
    given = x.to(bench.device, memory_format=torch.channels_last).requires_grad_()
    layer(given).backward(dy.to(bench.device))
    assert given.grad is not None
    exact = x.double().to(bench.device).requires_grad_()
    norm = torch.nn.BatchNorm2d(shape[1]).double().to(bench.device)
    norm(exact).backward(dy.double().to(bench.device))
    assert exact.grad is not None
    (statistics,) = layer.step_batches
    variance = exact.detach().var((0, 2, 3), correction=0)
    yield _relative("CGBN through collectives: variance against float64", statistics.var, variance, at_most=1e-6)
    yield _relative("CGBN through collectives: dx against float64", given.grad, exact.grad, at_most=1e-5)


def _relative(what: str, found: Tensor, wanted: Tensor, *, at_most: float) -> Found:
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    return Found(what, error.item(), at_most=at_most)


def _cpu_against_gpu(bench: Bench) -> Iterator[Found]:
    """Losses and gradients of one batch with the same proposals: which of two survives jumps with a last bit."""
    batch = batch_of(bench, bench.few)
    on_cpu = replace(bench, device_name="cpu")
    losses, gradients, proposals = _one_pass(on_cpu, batch, None)
    *_, own_proposals = _one_pass(bench, batch, None)
    pairs = zip(proposals, own_proposals, strict=True)
    same = sum(len(a) == len(b) and torch.equal(a.round(), b.round()) for a, b in pairs)
    yield Found("images with the same proposals to the pixel on CPU and GPU", f"{same} of {len(proposals)}")
    own_losses, own_gradients, _ = _one_pass(bench, batch, proposals)
    error, name = largest_difference(own_losses, losses)
    yield Found(f"losses, CPU against GPU (worst: {name})", error, at_most=1e-4)
    error, name = largest_difference(own_gradients, gradients)
    yield Found(f"gradients, CPU against GPU (worst: {name})", error, at_most=1e-4)


def _one_pass(
    bench: Bench, batch: ImageBatch, given: list[Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
    """Losses, gradients and proposals, on the CPU; of the `given` proposals where there are some."""
    detector = detector_of(bench, bench.model(), bn_size=len(batch)).train()
    propose = detector.rpn.propose
    proposals: list[Tensor] = []

    def proposed(features: list[Tensor], sizes: list[tuple[int, int]]) -> list[Tensor]:
        found = propose(features, sizes) if given is None else [boxes.to(bench.device) for boxes in given]
        proposals[:] = [boxes.cpu() for boxes in found]
        return found

    detector.rpn.propose = proposed  # type: ignore[method-assign,assignment]
    output = detector(batch.to(bench.device))
    torch.stack(list(output.losses.values())).sum().backward()
    gradients = {name: p.grad.cpu() for name, p in detector.named_parameters() if p.grad is not None}
    return {name: loss.detach().cpu() for name, loss in output.losses.items()}, gradients, proposals


def _twice(bench: Bench) -> Iterator[Found]:
    first, second = (_after_steps(bench, sublinear=False)[0] for _ in range(2))
    error, name = largest_difference(second, first)
    yield Found(f"{STEPS} steps twice: weights (worst: {name})", error, at_most=0.0)


def _sublinear(bench: Bench) -> Iterator[Found]:
    plain, plain_gb, plain_s = _after_steps(bench, sublinear=False)
    for sublinear, name in ((True, "sublinear memory"), (OFFLOAD, "sublinear memory with offloading")):
        found, gb, seconds = _after_steps(bench, sublinear=sublinear)
        error, worst = largest_difference(found, plain)
        yield Found(f"{name} on against off: weights (worst: {worst})", error, at_most=0.0)
        if plain_gb:
            yield Found(f"{name} on against off: peak", gb / plain_gb, "x", at_most=1.0)
        yield Found(f"{name} on against off: time of a step", seconds / plain_s, "x")


def _after_steps(bench: Bench, *, sublinear: bool | str) -> tuple[dict[str, Tensor], float, float]:
    """The weights after some steps of fp32 with CGBN, the peak of memory, and the seconds of the fastest step."""
    forget_peak(bench)
    trainer: Trainer = trainer_of(bench, images=bench.few, precision="fp32", frozen=False, sublinear=sublinear)
    seconds = trainer.steps([batch_of(bench, bench.few)] * STEPS)
    return weights_of(trainer.detector), peak_gb(bench), min(seconds)
