"""The steps of an epoch: how far the weights move, and where they end when somebody is told to stop."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from megdet.training.divergence import LossWatch
from megdet.training.loop import Interrupted, data_parallel, train_epoch
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader

LR = 0.1


def trained(
    root: Path, steps: int, clip_grad_norm: float | None = None, stop_at: tuple[int, int] | None = None
) -> tuple[list[Step], Tensor, bool]:
    """Steps of four images on each rank; how far the weights have moved, and whether the epoch was interrupted.

    `stop_at`: a rank, and the step in which it is told to stop.
    """
    detector = tiny_detector(bn_size=0)
    before = torch.cat([p.detach().flatten().clone() for p in detector.parameters()])
    batch = 4 * dist.get_world_size()
    done: list[Step] = []
    interrupted = False
    try:
        train_epoch(
            data_parallel(detector),
            islice(tiny_loader(root, batch=batch, bn_size=0, images_per_gpu=4, accumulation=1).epoch(0), steps),
            optimizer=torch.optim.SGD(detector.parameters(), lr=LR),
            lr_at=lambda step: LR,
            first_step=0,
            batch=batch,
            device=torch.device("cpu"),
            bf16=False,
            clip_grad_norm=clip_grad_norm,
            watch=LossWatch(),
            totals=EpochTotals(),
            stop_requested=lambda: stop_at == (dist.get_rank(), len(done) + 1),
            on_step=lambda step, seconds: done.append(step),
        )
    except Interrupted:
        interrupted = True
    return done, torch.cat([p.detach().flatten() for p in detector.parameters()]) - before, interrupted


def test_the_weights_move_by_lr_times_the_gradient_and_no_further_than_the_clipped_norm(shapes_root: Path) -> None:
    (((step,), moved, _),) = run_ranks(1, trained, shapes_root, 1)
    assert float(moved.norm()) == pytest.approx(LR * step.grad_norm, rel=1e-4)
    limit = 0.25 * step.grad_norm
    (((clipped,), moved_less, _),) = run_ranks(1, trained, shapes_root, 1, limit)
    assert clipped.grad_norm == step.grad_norm, "the norm on record is the one before clipping"
    assert float(moved_less.norm()) == pytest.approx(LR * limit, rel=1e-4)
    torch.testing.assert_close(moved_less, 0.25 * moved, rtol=1e-3, atol=1e-6)


def test_all_ranks_end_after_the_step_in_which_one_was_told_to_stop(shapes_root: Path) -> None:
    (first, weights, _), (second, others, _) = answers = run_ranks(2, trained, shapes_root, 4, None, (1, 2))
    assert all(interrupted for _, _, interrupted in answers)
    assert [step.step for step in first] == [step.step for step in second] == [1, 2]
    assert torch.equal(weights, others)


class Counting(nn.Module):
    """A parameter, and a buffer that each rank has its own value of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def buffer_after_a_step() -> tuple[float, float]:
    """This rank's buffer and gradient after forward and backward; both ranks have other inputs."""
    rank = dist.get_rank()
    model = data_parallel(Counting())
    model.module.seen.fill_(rank)
    for _ in range(2):
        model(torch.full((1,), 1.0 + rank)).sum().backward()
    return model.module.seen.item(), model.module.weight.grad.item()


def test_gradients_are_averaged_over_ranks_and_buffers_are_left_alone() -> None:
    assert run_ranks(2, buffer_after_a_step) == [(0.0, 3.0), (1.0, 3.0)]
