"""The gradient noise scale, against closed forms, float64 and other layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megdet.data.batch import TrainingStep
from megdet.training.distributed import bn_group_of
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.noise_scale import ALL, NoiseMeter, NoiseSample, NoiseSums, columns
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader

BATCH, STEPS = 8, 2


def sample_of(gradients: Tensor, *, images: int) -> NoiseSample:
    return NoiseSample.of(
        mean_square=gradients.square().sum(1).mean().item(),
        square_of_mean=gradients.mean(0).square().sum().item(),
        gradients=len(gradients),
        images=images,
    )


def test_the_noise_scale_of_a_known_distribution_is_found_within_its_standard_error() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation, images = torch.full((50,), 0.3, dtype=torch.float64), 2.0, 4
    expected = 50 * deviation**2 / mean.square().sum().item()  # tr(Sigma) / |G|^2 of single images: 44.4
    found = []
    for _ in range(200):
        sums = NoiseSums()
        for _ in range(40):
            noise = torch.randn(6, images, 50, generator=generator, dtype=torch.float64).mean(1)
            sums.add(sample_of(mean + deviation * noise, images=images))
        found.append((sums.scale(), sums.error()))
    scales = torch.tensor([scale for scale, _ in found], dtype=torch.float64)
    errors = torch.tensor([error for _, error in found], dtype=torch.float64)
    assert scales.median().item() == pytest.approx(expected, rel=0.05)
    # The error that is told is the deviation that is there.
    assert errors.median().item() == pytest.approx(scales.std().item(), rel=0.25)
    within = ((scales - expected).abs() < 2 * errors).double().mean().item()
    assert 0.88 < within < 0.99


def test_the_estimates_of_one_step_have_no_bias() -> None:
    generator = torch.Generator().manual_seed(1)
    samples = [
        sample_of(1 + 3 * torch.randn(2, 10, generator=generator, dtype=torch.float64), images=1) for _ in range(20_000)
    ]
    assert math.fsum(one.variance for one in samples) / len(samples) == pytest.approx(90, rel=0.02)
    assert math.fsum(one.signal for one in samples) / len(samples) == pytest.approx(10, rel=0.05)


def test_nothing_is_said_where_no_signal_was_found_and_no_error_of_one_step() -> None:
    nothing, once = NoiseSums(), NoiseSums()
    nothing.add(NoiseSample(variance=5.0, signal=-1.0))
    once.add(NoiseSample(variance=6.0, signal=2.0))
    assert columns({ALL: nothing, "rpn": once}) == {
        "noise_scale": None, "noise_scale_error": None, "noise_scale.rpn": 3.0, "noise_scale.rpn_error": None,
    }  # fmt: skip


def test_a_checkpoint_keeps_what_an_epoch_has_measured_so_far() -> None:
    totals = EpochTotals()
    for number in (1, 2):
        sample = NoiseSample(variance=5.0 * number, signal=1.0 / number)
        totals.add(Step(number, 0.1, {"a": 1.0}, {}, 1.0, noise={ALL: sample}), 0.5)
    again = EpochTotals.of(asdict(totals))
    assert again == totals and columns(again.noise)["noise_scale"] == pytest.approx(10)


def test_the_last_of_so_many_steps_is_measured_so_that_agvm_can_take_the_first() -> None:
    run_ranks(1, measured_numbers)


def measured_numbers() -> None:
    meter = NoiseMeter(torch.nn.Linear(1, 1), every=20, batch=8, gradients=2)
    assert [number for number in range(60) if meter.of_step(number)] == [19, 39, 59]


def test_one_gradient_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="variance"):
        NoiseMeter(torch.nn.Linear(1, 1), every=1, batch=8, gradients=1)


def unchanged(step: TrainingStep) -> TrainingStep:
    return step


def cut_in_two(step: TrainingStep) -> TrainingStep:
    """As the loader does where the images of a pass are padded to two sizes."""
    return TrainingStep([[images.part(0, 3), images.part(3, len(images))] for [images] in step.passes])


def measured_steps(
    root: Path,
    bn_size: int,
    images_per_gpu: int,
    accumulation: int,
    sublinear: bool,
    measure: bool,
    change: Callable[[TrainingStep], TrainingStep] = unchanged,
) -> tuple[dict[str, Tensor], list[Step]]:
    """The weights after some steps, and what each step said; `change` is what is made of each before."""
    bn_group = max(1, bn_size // images_per_gpu)
    detector = tiny_detector(bn_size=bn_size, bn_group=bn_group, sublinear=sublinear)
    loader = tiny_loader(root, batch=BATCH, bn_size=bn_size, images_per_gpu=images_per_gpu, accumulation=accumulation)
    model = data_parallel(detector)
    world = dist.get_world_size()
    noise = NoiseMeter(
        detector,
        every=1,
        batch=BATCH,
        gradients=world * accumulation // bn_group,
        group=bn_group_of(dist.get_rank(), world_size=world, bn_group=bn_group),
    )
    steps: list[Step] = []
    train_epoch(
        model,
        map(change, islice(loader.epoch(0), STEPS)),
        optimizer=torch.optim.SGD(detector.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4),
        lr_at=lambda step: 0.02 * (step + 1),
        first_step=0,
        batch=BATCH,
        device=torch.device("cpu"),
        bf16=False,
        clip_grad_norm=1.0,
        watch=LossWatch(),
        totals=EpochTotals(),
        stop_requested=lambda: False,
        on_step=lambda step, seconds: steps.append(step),
        noise=noise if measure else None,
    )
    return {name: value.clone() for name, value in detector.state_dict().items()}, steps


def gradients_of_bn_batches(root: Path, bn_size: int) -> NoiseSample:
    """Of the first step by the definition: one backward for each BN batch, alone, summed up in float64."""
    detector = tiny_detector(bn_size=bn_size)
    loader = tiny_loader(root, batch=BATCH, bn_size=bn_size, images_per_gpu=bn_size, accumulation=BATCH // bn_size)
    detector.train()
    vectors = []
    for images in next(iter(loader.epoch(0))).image_batches:
        detector.zero_grad()
        (torch.stack(list(detector(images).losses.values())).sum() / bn_size).backward()
        vectors.append(torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None]).double())
    return sample_of(torch.stack(vectors), images=bn_size)


# ranks, images per GPU, accumulation; the second has each BN batch on two ranks
LAYOUTS = [(2, 4, 1), pytest.param((4, 2, 1), marks=pytest.mark.slow), (2, 2, 2)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["2x4x1", "4x2x1", "2x2x2"])
def test_layouts_that_have_the_same_bn_batches_measure_the_same(
    layout: tuple[int, int, int], shapes_root: Path
) -> None:
    expected = run_ranks(1, gradients_of_bn_batches, shapes_root, 4)[0]
    [(_, one_rank)] = run_ranks(1, measured_steps, shapes_root, 4, 4, 2, False, True)
    assert one_rank[0].noise[ALL].variance == pytest.approx(expected.variance, rel=1e-4)
    assert one_rank[0].noise[ALL].signal == pytest.approx(expected.signal, rel=1e-3)
    world, images_per_gpu, accumulation = layout
    for _, steps in run_ranks(world, measured_steps, shapes_root, 4, images_per_gpu, accumulation, False, True):
        for found, wanted in zip(steps, one_rank, strict=True):
            assert set(found.noise) == {ALL, "backbone", "fpn", "rpn", "roi_heads"}
            for module, sample in wanted.noise.items():
                size = abs(sample.signal) + sample.variance / 4  # the norms that both are differences of
                assert found.noise[module].variance == pytest.approx(sample.variance, abs=1e-3 * size), module
                assert found.noise[module].signal == pytest.approx(sample.signal, abs=1e-3 * size), module


def test_a_pass_of_images_padded_to_two_sizes_is_one_gradient(shapes_root: Path) -> None:
    [(_, whole)], [(_, cut)] = (
        run_ranks(1, measured_steps, shapes_root, 0, 4, 2, False, True, change) for change in (unchanged, cut_in_two)
    )
    for found, wanted in zip(cut, whole, strict=True):
        assert found.noise[ALL].variance == pytest.approx(wanted.noise[ALL].variance, rel=1e-4)
        assert found.noise[ALL].signal == pytest.approx(wanted.noise[ALL].signal, rel=1e-3)


@pytest.mark.parametrize(("bn_size", "sublinear"), [(4, False), (4, True), (0, False)])
def test_measuring_changes_no_bit_of_what_is_learned(bn_size: int, sublinear: bool, shapes_root: Path) -> None:
    measured, plain = (
        run_ranks(2, measured_steps, shapes_root, bn_size, 2, 2, sublinear, measure) for measure in (True, False)
    )
    for (weights, steps), (plain_weights, plain_steps) in zip(measured, plain, strict=True):
        assert all(torch.equal(weights[name], value) for name, value in plain_weights.items())
        assert [step.losses for step in steps] == [step.losses for step in plain_steps]
        assert [step.grad_norm for step in steps] == [step.grad_norm for step in plain_steps]
        assert all(step.noise for step in steps) and not any(step.noise for step in plain_steps)
