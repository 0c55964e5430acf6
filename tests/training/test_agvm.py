"""AGVM takes the steps that its paper writes down, the same on every layout."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from megdet.config.compose import compose
from megdet.config.optimizer import AgvmSettings, OptimizerSettings
from megdet.errors import UserError
from megdet.planning.identity import run_id_of
from megdet.planning.plan import make_plan
from megdet.training.agvm import AGVM
from megdet.training.divergence import LossWatch
from megdet.training.halves import halves_of
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.optimizer import build_optimizer
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader, tiny_model

BATCH = 8
LAYOUTS = [(1, 4, 2), (2, 2, 2), (4, 2, 1)]
"""Ranks, images per GPU, accumulation. Where one rank has all images, the second half begins within its pass."""


def settings(interval: int = 1, alpha: float = 0.5) -> OptimizerSettings:
    return OptimizerSettings(name="agvm", agvm=AgvmSettings(interval=interval, alpha=alpha), norm_weight_decay=0.0)


def steps_in_float64(
    root: Path, bn_size: int, images_per_gpu: int, accumulation: int, sublinear: bool
) -> tuple[dict[str, Tensor], list[Step]]:
    """Four steps at a high rate, of which the second and fourth compare; weights, and what each step said."""
    bn_group = max(1, bn_size // images_per_gpu)
    detector = tiny_detector(bn_size=bn_size, bn_group=bn_group, sublinear=sublinear).double()
    loader = tiny_loader(root, batch=BATCH, bn_size=bn_size, images_per_gpu=images_per_gpu, accumulation=accumulation)
    optimizer = build_optimizer(settings(interval=2), detector, lr=0.05, warmup_steps=1)
    steps: list[Step] = []
    train(detector, optimizer, loader.epoch(0), first=1, upto=5, steps=steps)
    return {name: value.clone() for name, value in detector.state_dict().items()}, steps


def train(detector, optimizer, training_steps, *, first: int, upto: int, steps: list[Step]) -> None:
    train_epoch(
        data_parallel(detector),
        islice(training_steps, upto - first),
        optimizer=optimizer,
        lr_at=lambda step: 0.05,
        first_step=first,
        batch=BATCH,
        device=torch.device("cpu"),
        bf16=False,
        clip_grad_norm=5.0,
        watch=LossWatch(),
        totals=EpochTotals(),
        stop_requested=lambda: False,
        on_step=lambda step, seconds: steps.append(step),
    )


@pytest.mark.slow
@pytest.mark.parametrize("bn_size", [0, 4])
def test_steps_of_agvm_are_the_same_on_every_layout(bn_size: int, shapes_root: Path) -> None:
    expected, said = run_ranks(1, steps_in_float64, shapes_root, bn_size, BATCH, 1, False)[0]
    factors = [step.lr_factors for step in said]
    assert factors[0] == dict.fromkeys(("backbone", "fpn", "rpn", "roi_heads"), 1.0)
    assert factors[1] == factors[2] != factors[0] and factors[3] != factors[2]
    assert all(step["backbone"] == 1.0 for step in factors), "the anchor's ratio to itself is 1"
    for ranks, images_per_gpu, accumulation in LAYOUTS:
        found = run_ranks(ranks, steps_in_float64, shapes_root, bn_size, images_per_gpu, accumulation, ranks == 1)
        for weights, steps in found:
            for name, value in expected.items():
                largest = value.abs().max().clamp(min=1e-300)
                assert ((weights[name] - value).abs().max() / largest).item() < 1e-10, (ranks, images_per_gpu, name)
            for step, wanted in zip(steps, said, strict=True):
                assert step.lr_factors == pytest.approx(wanted.lr_factors, rel=1e-10)
        assert all(torch.equal(value, found[0][0][name]) for weights, _ in found for name, value in weights.items())


def test_a_step_that_compares_has_the_gradient_of_any_other(shapes_root: Path) -> None:
    """With factors that cannot move (alpha = 1), AGVM is SGD."""
    agvm, sgd = (run_ranks(1, weights_after_two_steps, shapes_root, name)[0] for name in ("agvm", "sgd"))
    for name, value in sgd.items():
        torch.testing.assert_close(agvm[name], value, rtol=1e-10, atol=1e-12)


def weights_after_two_steps(root: Path, name: str) -> dict[str, Tensor]:
    detector = tiny_detector(bn_size=4).double()
    loader = tiny_loader(root, batch=BATCH, bn_size=4, images_per_gpu=8, accumulation=1)
    asked = settings(alpha=1.0) if name == "agvm" else OptimizerSettings(norm_weight_decay=0.0)
    optimizer = build_optimizer(asked, detector, lr=0.05, warmup_steps=0)
    train(detector, optimizer, loader.epoch(0), first=0, upto=2, steps=[])
    return {name: value.clone() for name, value in detector.state_dict().items()}


def test_halves_are_by_position_on_every_layout(shapes_root: Path) -> None:
    def images_of(layout: tuple[int, int, int]) -> list[set[int]]:
        found = run_ranks(layout[0], image_ids_by_half, shapes_root, *layout[1:])
        return [set().union(*(half[number] for half in found)) for number in (0, 1)]

    first, second = images_of((1, 8, 1))
    assert len(first) == len(second) == BATCH // 2 and not first & second
    for layout in LAYOUTS:
        assert images_of(layout) == [first, second], layout


def image_ids_by_half(root: Path, images_per_gpu: int, accumulation: int) -> list[list[int]]:
    loader = tiny_loader(root, batch=BATCH, bn_size=0, images_per_gpu=images_per_gpu, accumulation=accumulation)
    place = {"batch": BATCH, "rank": dist.get_rank(), "world_size": dist.get_world_size()}
    halves = halves_of(next(iter(loader.epoch(0))), **place)
    return [[image_id for images in half for image_id in images.image_ids] for half in halves]


def modulated(alpha: float) -> tuple[AGVM, dict[str, Parameter]]:
    """A parameter for each of two modules, with gradients, in float64."""
    generator = torch.Generator().manual_seed(0)
    parameters = {name: Parameter(torch.randn(6, generator=generator).double()) for name in ("backbone", "fpn")}
    groups = [{"params": [p], "weight_decay": 0.01, "module": name} for name, p in parameters.items()]
    return AGVM(groups, lr=0.5, momentum=0.9, settings=AgvmSettings(interval=1, alpha=alpha), first_step=0), parameters


def test_factors_and_steps_are_those_of_the_papers_equations() -> None:
    alpha, generator = 0.9, torch.Generator().manual_seed(1)
    optimizer, parameters = modulated(alpha)
    factor, weights = 1.0, {name: p.detach().clone() for name, p in parameters.items()}
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(3):
        halves = [{p: torch.randn(6, generator=generator).double() + 1 for p in parameters.values()} for _ in (1, 2)]
        for p in parameters.values():
            p.grad = halves[0][p] + halves[1][p]
        optimizer.compare(*halves)
        optimizer.step()
        phi = {
            name: 1 - torch.nn.functional.cosine_similarity(halves[0][p], halves[1][p], dim=0).item()
            for name, p in parameters.items()
        }
        factor = alpha * factor + (1 - alpha) * min(max(phi["backbone"] / phi["fpn"], 0.5), 10) ** 0.5
        assert optimizer.factors == {"backbone": pytest.approx(1.0), "fpn": pytest.approx(factor, rel=1e-5)}
        for name, p in parameters.items():
            assert p.grad is not None
            velocity[name] = 0.9 * velocity[name] + p.grad + 0.01 * weights[name]
            weights[name] = weights[name] - 0.5 * optimizer.factors[name] * velocity[name]
            torch.testing.assert_close(p.detach(), weights[name], rtol=1e-12, atol=1e-14)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5], "what was asked for stays"


def test_a_half_without_a_gradient_counts_as_uncertain() -> None:
    optimizer, parameters = modulated(alpha=0.0)
    some, none = ({p: torch.full((6,), value).double() for p in parameters.values()} for value in (1.0, 0.0))
    optimizer.compare(some, none)
    assert optimizer.factors == {"backbone": 1.0, "fpn": 1.0}


def test_factors_are_in_the_state_dict() -> None:
    (first, parameters), (second, _) = modulated(0.5), modulated(0.5)
    generator = torch.Generator().manual_seed(2)
    first.compare(*[{p: torch.randn(6, generator=generator).double() for p in parameters.values()} for _ in (1, 2)])
    second.load_state_dict(first.state_dict())
    assert second.factors == first.factors != {"backbone": 1.0, "fpn": 1.0}


def test_a_batch_without_two_halves_of_bn_batches_is_refused_when_planned() -> None:
    with pytest.raises(UserError, match=r"two halves of a batch, and batch=48 has no halves.*bn_size=16.*batch=64"):
        make_plan(compose(["optimizer=agvm", "batch=48", "cluster=paper"]))
    make_plan(compose(["optimizer=agvm", "batch=64", "cluster=paper"]))


@pytest.mark.parametrize(("interval", "every"), [(1, 20), (3, 20), (10, 7), (10, 20), (4, 6), (2, 3), (3, 3)])
def test_the_noise_scale_is_refused_where_it_would_be_measured_in_steps_that_compare(interval: int, every: int) -> None:
    asked = ["optimizer=agvm", "batch=64", "cluster=paper"]
    asked += [f"noise_scale_every={every}", f"optimizer.agvm.interval={interval}"]
    if any(number % interval == 0 and (number + 1) % every == 0 for number in range(1000)):
        with pytest.raises(UserError, match=rf"noise_scale_every={every}: .*interval={interval}, .*a common divisor"):
            make_plan(compose(asked))
    else:
        make_plan(compose(asked))


def test_a_backbone_that_is_not_trained_is_no_anchor() -> None:
    detector = tiny_detector(bn_size=0, model=tiny_model())
    for parameter in detector.backbone.body.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match=r"optimizer=agvm.*model.backbone.frozen_stages"):
        build_optimizer(settings(), detector, lr=0.1, warmup_steps=0)


@pytest.mark.parametrize("asked", ["optimizer.agvm.interval=5", "optimizer.name=agvm"])
def test_agvm_is_asked_for_by_its_name_and_interval_together(asked: str) -> None:
    with pytest.raises(UserError, match="use optimizer=agvm, which sets both"):
        make_plan(compose([asked, "cluster=paper"]))


def test_ids_of_other_runs_know_nothing_of_agvm() -> None:
    assert run_id_of(compose(["cluster=paper"])) == run_id_of(compose(["cluster=paper", "optimizer.agvm.alpha=0.97"]))
    ids = {run_id_of(compose([*asked, "batch=64"])) for asked in ([], ["optimizer=agvm"], ["optimizer=lars"])}
    assert len(ids) == 3
