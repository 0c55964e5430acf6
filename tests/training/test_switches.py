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
from tests.ranks import run_ranks
from tests.tiny import tiny_model
from tests.training.test_layouts import train_some_steps

SWITCHES = ["model/norm=gn", "model/roi_pool=precise", "model/roi_pool=max"]


def model_with(switch: str) -> ModelSettings:
    """The tiny detector of the tests with one switch as its file in `conf/` has it."""
    asked, model = compose(["model=tiny", switch]).model, tiny_model()
    model.norm, model.roi_pool = asked.norm, asked.roi_pool
    return model


def weights_of(switch: str, layout: tuple[int, int, int], root: Path, *, sublinear: bool = False) -> dict[str, Tensor]:
    world, images_per_gpu, accumulation = layout
    model = model_with(switch)
    weights, _ = run_ranks(world, train_some_steps, root, 4, images_per_gpu, accumulation, sublinear, False, model)[0]
    return weights


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_trains_to_the_same_weights_on_every_layout(switch: str, shapes_root: Path) -> None:
    expected = weights_of(switch, (1, 8, 1), shapes_root)
    for layout, sublinear in (((2, 2, 2), False), ((1, 4, 2), True)):
        found = weights_of(switch, layout, shapes_root, sublinear=sublinear)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6), (layout, name)


def test_switches_differ_from_the_default_in_what_they_learn(shapes_root: Path) -> None:
    default = weights_of("model/norm=cgbn", (1, 8, 1), shapes_root)
    for switch in SWITCHES:
        found = weights_of(switch, (1, 8, 1), shapes_root)
        name = "roi_heads.box_head.fc6.weight"
        assert not torch.allclose(found[name], default[name], rtol=1e-3, atol=1e-4), switch


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
