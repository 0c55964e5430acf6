"""The two halves of a batch: its first and its last positions, however the batch is laid out.

A half holds whole BN batches (planning sees to it), so where they lie in one pass of a GPU the pass is taken apart
there, and the gradient of each half is the same on every layout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import Parameter

from megdet.data.batch import ImageBatch, TrainingStep

Gradients = dict[Parameter, Tensor]


def halves_of(
    step: TrainingStep, *, batch: int, rank: int, world_size: int
) -> tuple[list[ImageBatch], list[ImageBatch]]:
    """What this rank has of the images at positions below `batch` / 2, and of the others; in their order."""
    first: list[ImageBatch] = []
    second: list[ImageBatch] = []
    for number, one_pass in enumerate(step.passes):
        # As in TrainLoader.
        position = (number * world_size + rank) * sum(map(len, one_pass))
        for images in one_pass:
            below = min(max(batch // 2 - position, 0), len(images))
            if below:
                first.append(images.part(0, below))
            if below < len(images):
                second.append(images.part(below, len(images)))
            position += len(images)
    return first, second


def gradients_by_half(
    model: nn.Module,
    halves: tuple[list[ImageBatch], list[ImageBatch]],
    *,
    backward: Callable[[ImageBatch], None],
) -> tuple[Gradients, Gradients]:
    """The gradients of both halves, summed over all ranks; their sum is left in `.grad`.

    `backward(images)` adds the gradient of some images of this rank to `.grad`. Collective.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    found: list[Gradients] = []
    for half in halves:
        for images in half:
            backward(images)
        found.append(_over_ranks(parameters))
    first, second = found
    for parameter in parameters:
        # In the layout of the weights, as autograd would have left it.
        parameter.grad = torch.empty_like(parameter).copy_(first[parameter] + second[parameter])
    return first, second


def _over_ranks(parameters: list[Parameter]) -> Gradients:
    """The sums over ranks of what is in `.grad`, which is empty then; one all-reduce."""
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in own])
    for parameter in parameters:
        parameter.grad = None
    dist.all_reduce(flat)
    parts = flat.split([p.numel() for p in parameters])
    return {p: part.view(p.shape) for p, part in zip(parameters, parts, strict=True)}
