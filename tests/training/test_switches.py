"""The model's switches in `conf/model/` train to the same weights on every layout, sublinear memory included."""

from __future__ import annotations

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

SWITCHES = ["model/norm=gn", "model/roi_pool=precise", "model/roi_pool=max", "model/roi_pool=aligned"]


def model_with(switch: str) -> ModelSettings:
    """The tiny detector of the tests with one switch as its file in `conf/` has it."""
    asked, model = compose(["model=tiny", switch]).model, tiny_model()
    model.norm, model.roi_pool = asked.norm, asked.roi_pool
    return model


def gradients_on(
    layout: tuple[int, int, int], switch: str, root: Path, *, sublinear: bool = False
) -> dict[str, Tensor]:
    """Of one step with BN over 4 of its 8 images, in float64."""
    ranks, images_per_gpu, accumulation = layout
    return run_ranks(ranks, gradients_in_float64, root, switch, images_per_gpu, accumulation, sublinear)[0]


def gradients_in_float64(
    root: Path, switch: str, images_per_gpu: int, accumulation: int, sublinear: bool
) -> dict[str, Tensor]:
    model, bn_group = model_with(switch), max(1, 4 // images_per_gpu)
    detector = tiny_detector(bn_size=4, bn_group=bn_group, sublinear=sublinear, model=model).double()
    loader = tiny_loader(root, batch=8, bn_size=4, images_per_gpu=images_per_gpu, accumulation=accumulation)
    parallel, device = data_parallel(detector), torch.device("cpu")
    accumulate_gradients(parallel, next(iter(loader.epoch(0))), NamedSums(), batch=8, device=device, bf16=False)
    return {name: p.grad.clone() for name, p in detector.named_parameters()}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_step_with_a_switch_is_the_same_on_every_layout(switch: str, shapes_root: Path) -> None:
    expected = gradients_on((1, 8, 1), switch, shapes_root)
    default = gradients_on((1, 8, 1), "model/norm=cgbn", shapes_root)
    assert any(not torch.allclose(expected[name], default[name], rtol=1e-3) for name in default.keys() & expected)
    for layout, sublinear in (((2, 2, 2), False), ((4, 2, 1), False), ((1, 4, 2), True)):
        found = gradients_on(layout, switch, shapes_root, sublinear=sublinear)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            error = ((found[name] - value).abs().max() / value.abs().max()).item()
            assert error < 1e-10, (layout, name, error)


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
