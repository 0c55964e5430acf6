"""From a plan to the parts of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from megdet.config.schema import Config
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector
from megdet.model.settings import BackboneSettings, ModelSettings, RoIHeadsSettings
from megdet.planning.plan import make_plan
from megdet.training.assemble import detector_of, optimizer_of
from megdet.training.distributed import Ranks

ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


def detector_for(bn_size: int, bn_in: list[str], backbone: str = "resnet18") -> Detector:
    config = Config(batch=4, bn_size=bn_size, gpus=1)
    config.model = model_with(backbone, bn_in)
    config.cluster.gpus_per_node = 1
    return detector_of(make_plan(config), ALONE)


def model_with(backbone: str, bn_in: list[str]) -> ModelSettings:
    return ModelSettings(
        bn_in=bn_in,
        backbone=BackboneSettings(name=backbone, weights="none", frozen_stages=0),
        roi_heads=RoIHeadsSettings(head_channels=8),
    )


def norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if "BatchNorm" in type(m).__name__)


@pytest.mark.parametrize(
    ("bn_in", "in_backbone", "in_fpn"),
    [
        (["backbone", "fpn"], CrossGPUBatchNorm2d, CrossGPUBatchNorm2d),
        (["backbone"], CrossGPUBatchNorm2d, None),
        (["fpn"], FrozenBatchNorm2d, CrossGPUBatchNorm2d),
    ],
    ids=["backbone_and_fpn", "backbone", "fpn"],
)
def test_bn_goes_where_bn_in_says(bn_in: list[str], in_backbone: type, in_fpn: type | None) -> None:
    detector = detector_for(4, bn_in)
    body, fpn = list(norms(detector.backbone.body)), list(norms(detector.backbone.fpn))
    assert len(body) == 20 and all(isinstance(m, in_backbone) for m in body)  # ResNet-18 has 20 batch norms
    assert len(fpn) == (8 if in_fpn else 0) and all(isinstance(m, in_fpn) for m in fpn if in_fpn)
    assert not list(norms(detector.rpn)) and not list(norms(detector.roi_heads))


def test_bn_size_0_freezes_statistics_and_affine_and_leaves_the_pyramid_without_a_norm() -> None:
    detector = detector_for(0, ["backbone", "fpn"])
    body = list(norms(detector.backbone.body))
    assert len(body) == 20 and all(isinstance(m, FrozenBatchNorm2d) for m in body)
    assert not any(list(m.parameters()) for m in body)
    assert not list(norms(detector.backbone.fpn))


@pytest.mark.parametrize("asked", [True, False])
def test_sublinear_memory_is_where_the_plan_has_it(asked: bool) -> None:
    config = Config(batch=4, bn_size=4, gpus=1, sublinear=asked)
    config.model = model_with("tiny", ["backbone", "fpn"])
    config.cluster.gpus_per_node = 1
    plan = make_plan(config)
    assert plan.layout.sublinear is asked
    assert detector_of(plan, ALONE).backbone.sublinear is asked


def test_the_optimizer_trains_all_that_is_not_frozen_with_the_papers_settings() -> None:
    config = Config(batch=4, bn_size=4, gpus=1)
    config.model = model_with("tiny", ["backbone", "fpn"])
    config.cluster.gpus_per_node = 1
    plan = make_plan(config)
    detector = detector_of(plan, ALONE)
    (group,) = optimizer_of(plan, detector).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in detector.parameters()}
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02 * 4 / 16, 0.9, 1e-4)


@pytest.mark.parametrize(
    ("of_norms", "of_biases", "decays"),
    [(0.0, None, {1e-4, 0.0}), (None, 0.0, {1e-4, 0.0}), (0.0, 0.0, {1e-4, 0.0}), (2e-4, 0.0, {1e-4, 2e-4, 0.0})],
)
def test_norms_and_biases_have_the_weight_decay_that_is_asked_for(
    of_norms: float | None, of_biases: float | None, decays: set[float]
) -> None:
    config = Config(batch=4, bn_size=4, gpus=1)
    config.model = model_with("tiny", ["backbone", "fpn"])
    config.cluster.gpus_per_node = 1
    config.optimizer.norm_weight_decay, config.optimizer.bias_weight_decay = of_norms, of_biases
    plan = make_plan(config)
    detector = detector_of(plan, ALONE)
    groups = optimizer_of(plan, detector).param_groups
    found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {group["weight_decay"] for group in groups} == decays
    of_cgbn = {id(p) for m in norms(detector) for p in m.parameters()}
    for name, parameter in detector.named_parameters():
        kind = of_norms if id(parameter) in of_cgbn else of_biases if name.endswith(".bias") else None
        assert found[id(parameter)] == (1e-4 if kind is None else kind), name
