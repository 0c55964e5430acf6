"""The model's switches in `conf/model/` train to the same weights on every layout, sublinear memory included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megdet.config.compose import compose
from megdet.errors import UserError
from megdet.model.group_norm import group_norm
from megdet.model.settings import ModelSettings
from megdet.planning.plan import make_plan
from megdet.training.loop import accumulate_gradients, data_parallel
from megdet.training.named_sums import NamedSums
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader, tiny_model

SWITCHES = [
    "model/norm=gn",
    "model/roi_pool=precise",
    "model/roi_pool=max",
    "model/roi_pool=aligned",
    "model.roi_heads.sampler=ohem",
    "model.backbone.atrous=true",
    "model.large_kernel.size=7 model.bn_in=[backbone,fpn,large_kernel]",
    "model.context.scale=2 model.bn_in=[backbone,fpn,context]",
    "model.context.scale=2 model.roi_heads.sampler=ohem model/roi_pool=precise model.bn_in=[backbone,fpn,context]",
    "model.segmentation.weight=0.1 model.bn_in=[backbone,fpn,segmentation]",
    "model.mask.name=generator model.mask.layers=2 model.mask.resolution=6 model.bn_in=[backbone,fpn,mask]",
    "data.train_scales=[0.75,1.0,1.5]",
    *(
        pytest.param(switch, marks=pytest.mark.slow)
        for switch in (
            "model.mask.name=head model.mask.layers=2 model.mask.resolution=6",
            "model.mask.name=head model.mask.layers=1 data.train_scales=[0.75,1.0,1.5]",
            "model.mask.name=generator model.mask.layers=1 model.roi_heads.sampler=ohem model/roi_pool=precise",
            "model.segmentation.weight=0.1 model.segmentation.targets=masks",
            "model/backbone=seresnext50_32x4d model.backbone.weights=none model.backbone.frozen_stages=0",
        )
    ),
]


def asked_with(switch: str) -> tuple[ModelSettings, Sequence[float]]:
    """The tiny detector of the tests and the scales of its images, with a switch as on a command line."""
    asked, model = compose(["model=tiny", "data=shapes", *switch.split()]), tiny_model()
    for part in ("bn_in", "norm", "backbone", "roi_pool", "large_kernel", "context", "segmentation", "mask"):
        setattr(model, part, getattr(asked.model, part))
    model.roi_heads.sampler = asked.model.roi_heads.sampler
    return model, asked.data.train_scales or ()


def gradients_on(
    layout: tuple[int, int, int], switch: str, root: Path, *, sublinear: bool = False
) -> dict[str, Tensor]:
    """Of one step with BN over 4 of its 8 images, in float64."""
    ranks, images_per_gpu, accumulation = layout
    return run_ranks(ranks, gradients_in_float64, root, switch, images_per_gpu, accumulation, sublinear)[0]


def gradients_in_float64(
    root: Path, switch: str, images_per_gpu: int, accumulation: int, sublinear: bool
) -> dict[str, Tensor]:
    (model, scales), bn_group = asked_with(switch), max(1, 4 // images_per_gpu)
    detector = tiny_detector(bn_size=4, bn_group=bn_group, sublinear=sublinear, model=model).double()
    shape = {"batch": 8, "bn_size": 4, "images_per_gpu": images_per_gpu, "accumulation": accumulation}
    loader = tiny_loader(root, **shape, train_scales=scales, masks=model.reads_masks)
    parallel, device = data_parallel(detector), torch.device("cpu")
    accumulate_gradients(parallel, next(iter(loader.epoch(0))), NamedSums(), batch=8, device=device, bf16=False)
    return {name: p.grad.clone() for name, p in detector.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_step_with_a_switch_is_the_same_on_every_layout(switch: str, shapes_root: Path) -> None:
    expected = gradients_on((1, 8, 1), switch, shapes_root)
    default = gradients_on((1, 8, 1), "model/norm=cgbn", shapes_root)
    assert any(
        expected[name].shape != default[name].shape or not torch.allclose(expected[name], default[name], rtol=1e-3)
        for name in default.keys() & expected
    )
    for layout, sublinear in (((2, 2, 2), False), ((4, 2, 1), False), ((1, 4, 2), True)):
        found = gradients_on(layout, switch, shapes_root, sublinear=sublinear)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            largest = value.abs().max().clamp(min=1e-300)  # small images have no region on the upper levels
            error = ((found[name] - value).abs().max() / largest).item()
            assert error < 1e-10, (layout, name, error)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_step_with_a_switch_is_finite_in_bfloat16_and_near_float32(switch: str, shapes_root: Path) -> None:
    losses = run_ranks(1, losses_by_precision, shapes_root, switch)[0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)


def losses_by_precision(root: Path, switch: str) -> dict[str, float]:
    """Of one step, its gradients taken too."""
    (model, scales), device, found = asked_with(switch), torch.device("cpu"), {}
    shape = {"batch": 4, "bn_size": 4, "images_per_gpu": 4, "accumulation": 1}
    loader = tiny_loader(root, **shape, train_scales=scales, masks=model.reads_masks)
    step = next(iter(loader.epoch(0)))
    for name in ("fp32", "bf16"):
        detector, sums = tiny_detector(bn_size=4, model=model), NamedSums()
        accumulate_gradients(data_parallel(detector), step, sums, batch=4, device=device, bf16=name == "bf16")
        assert all(bool(p.grad.isfinite().all()) for p in detector.parameters()), name
        found[name] = sum(sums.over_ranks(stop_requested=False).losses.values())
    return found


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (16, 16), (24, 8)])
def test_group_norm_has_32_groups_or_what_divides_a_narrow_layer(channels: int, groups: int) -> None:
    x = torch.randn(2, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    parts = x.double().unflatten(1, (groups, -1))
    mean, variance = parts.mean((2, 3, 4), keepdim=True), parts.var((2, 3, 4), keepdim=True, correction=0)
    expected = ((parts - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
    torch.testing.assert_close(group_norm(channels, bn_size=4, group=None)(x).double(), expected, rtol=0, atol=1e-5)


def test_group_norm_on_weights_trained_with_batch_norm_is_refused_when_planned() -> None:
    with pytest.raises(UserError, match=r"model.norm.name=gn with model.backbone.weights=imagenet.*weights=none"):
        make_plan(compose(["model/norm=gn", "gpus=8", "cluster=paper"]))
