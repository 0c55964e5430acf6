"""The promise: the hardware never changes what is learned."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader

BATCH = 8
STEPS = 3
# ranks, images per GPU, accumulation
LAYOUTS = [(2, 4, 1), (4, 2, 1), (2, 2, 2), (1, 2, 4)]
CASES = [(layout, bn_size) for layout in LAYOUTS for bn_size in (0, 2, 4) if bn_size <= layout[0] * layout[1]]


def train_some_steps(
    root: Path, bn_size: int, images_per_gpu: int, accumulation: int, sublinear: bool | str, bf16: bool
) -> tuple[dict[str, Tensor], list[Step]]:
    """The weights and statistics after some steps at a high learning rate, and what each step said."""
    bn_group = max(1, bn_size // images_per_gpu)
    detector = tiny_detector(bn_size=bn_size, bn_group=bn_group, sublinear=sublinear)
    loader = tiny_loader(root, batch=BATCH, bn_size=bn_size, images_per_gpu=images_per_gpu, accumulation=accumulation)
    model = data_parallel(detector)
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    steps: list[Step] = []

    train_epoch(
        model,
        islice(loader.epoch(0), STEPS),
        optimizer=optimizer,
        lr_at=lambda step: 0.02 * (step + 1),
        first_step=0,
        batch=BATCH,
        device=torch.device("cpu"),
        bf16=bf16,
        clip_grad_norm=None,
        watch=LossWatch(),
        totals=EpochTotals(),
        stop_requested=lambda: False,
        on_step=lambda step, seconds: steps.append(step),
    )
    return {name: value.clone() for name, value in detector.state_dict().items()}, steps


def runs_of(layout: tuple[int, int, int], root: Path, bn_size: int, sublinear: bool | str = False, bf16: bool = False):
    world, images_per_gpu, accumulation = layout
    return run_ranks(world, train_some_steps, root, bn_size, images_per_gpu, accumulation, sublinear, bf16)


@pytest.fixture(scope="module")
def expected(shapes_root: Path):
    """What one process with all eight images in one pass comes to, by BN size."""
    return {bn_size: runs_of((1, 8, 1), shapes_root, bn_size)[0] for bn_size in (0, 2, 4)}


@pytest.mark.parametrize(("layout", "bn_size"), CASES, ids=[f"{a}x{b}x{c}-bn{bn}" for (a, b, c), bn in CASES])
def test_one_step_is_the_same_on_every_layout(
    layout: tuple[int, int, int], bn_size: int, shapes_root: Path, expected: dict
) -> None:
    weights, steps = expected[bn_size]
    for found_weights, found_steps in runs_of(layout, shapes_root, bn_size):
        assert found_weights.keys() == weights.keys()
        for name, value in weights.items():
            assert torch.allclose(found_weights[name], value, rtol=1e-5, atol=1e-6), name
        for found, wanted in zip(found_steps, steps, strict=True):
            assert found.counts == wanted.counts
            assert found.losses == pytest.approx(wanted.losses, rel=1e-5, abs=1e-7)
            assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
            assert found.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-5)


def test_every_rank_ends_with_the_same_weights_and_statistics_bit_for_bit(shapes_root: Path) -> None:
    (first, _), *others = runs_of((4, 2, 1), shapes_root, 4)
    for weights, _ in others:
        assert all(torch.equal(weights[name], value) for name, value in first.items())


@pytest.mark.parametrize("mode", [True, "offload"])
def test_sublinear_memory_changes_nothing_bit_for_bit(mode: bool | str, shapes_root: Path) -> None:
    plain, recomputed = (runs_of((2, 2, 2), shapes_root, 4, sublinear)[0][0] for sublinear in (False, mode))
    assert all(torch.equal(recomputed[name], value) for name, value in plain.items())


def test_the_bn_size_does_change_what_is_learned(shapes_root: Path, expected: dict) -> None:
    (two, _), (four, _) = expected[2], expected[4]
    assert not torch.allclose(two["rpn.head.cls_logits.weight"], four["rpn.head.cls_logits.weight"], atol=1e-6)


def test_bf16_autocast_trains_on_nearly_the_same_losses_with_float32_weights(shapes_root: Path, expected: dict) -> None:
    ((weights, steps),) = runs_of((1, 8, 1), shapes_root, 4, bf16=True)
    _, exact_steps = expected[4]
    assert all(value.dtype != torch.bfloat16 for value in weights.values())
    # Other proposals may be sampled after rounding to 8 bits, so the steps are alike and not equal.
    assert steps[0].loss != exact_steps[0].loss
    assert steps[0].loss == pytest.approx(exact_steps[0].loss, rel=0.1)
