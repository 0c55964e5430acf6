"""A user's own parts: real ones train and resume, others are refused with the key and what does not fit."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model.backbones import Body, build_backbone
from megdet.model.norms import norm_layers
from megdet.model.roi_pool import build_roi_pool
from megdet.model.settings import BackboneSettings, ModelSettings, NormSettings, RoIPoolSettings
from megdet.planning.plan import Plan, make_plan
from megdet.planning.schedule import Schedule
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.training.assemble import detector_of, optimizer_of
from megdet.training.distributed import Ranks
from megdet.training.learning_rate import build_learning_rate
from megdet.training.optimizer import build_optimizer
from tests.training import own_parts
from tests.training.test_run import config_of, folder_of, start, wait_for_step, weights_of

HERE = "tests.training.own_parts"
ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
SCHEDULE = Schedule(lr=0.1, warmup_lr=0.1, warmup_steps=0, milestones=(), steps_per_epoch=4, epochs=2)


def own(name: str, **arguments: object) -> dict[str, Any]:
    return {"_target_": f"{HERE}.{name}", **arguments}


def config_with_own_parts(tmp_path: Path, shapes_root: Path) -> Config:
    """One of each kind, for 8 steps."""
    config = config_of(tmp_path, shapes_root)
    config.schedule.name, config.schedule.custom = "cosine", own("Cosine", floor=0.1)
    config.schedule.epochs, config.schedule.milestones, config.schedule.factors = 2, [], []
    config.lr.base = 0.002
    config.optimizer.name, config.optimizer.custom = "sign", own("SignMomentum", beta=0.5)
    model = config.model
    model.backbone.name, model.backbone.custom = "patches", own("PatchNet", width=8)
    model.norm.name, model.norm.custom = "gn", own("group_norm", groups=4)
    model.roi_pool.name, model.roi_pool.custom = "max", own("FinestLevelMaxPool")
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Plan:
    """A whole run with one own part of each kind, as a launcher starts its rank."""
    plan = make_plan(config_with_own_parts(tmp_path_factory.mktemp("own"), shapes_root))
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return plan


def test_a_run_with_an_own_part_of_each_kind_trains_and_evaluates(finished: Plan) -> None:
    lines = read_journal(RunFolder(folder_of(finished)))
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(steps) == 8 and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in steps)
    full = finished.schedule.lr
    expected = [full * (0.1 + 0.9 * (1 + math.cos(math.pi * step / 8)) / 2) for step in range(8)]
    assert [line["lr"] for line in steps] == pytest.approx(expected)
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2]
    trained, initial = weights_of(finished), detector_of(finished, ALONE).state_dict()
    assert trained.keys() == initial.keys() and "backbone.body.stages.0.0.weight" in trained
    for name, value in trained.items():
        # Steps of one size, whatever the gradient: more than 0, and no more than all rates together.
        assert 0 < (value - initial[name]).abs().max() <= 1.001 * sum(expected), name
    assert (finished.name, finished.config.model.norm.name) == ("b8-bn4-cosine-s1", "gn")


@pytest.mark.slow
def test_own_parts_resume_to_the_same_weights(finished: Plan, tmp_path: Path, shapes_root: Path) -> None:
    plan = make_plan(config_with_own_parts(tmp_path, shapes_root))
    process = start(plan)
    wait_for_step(plan, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 3
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    expected = weights_of(finished)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(plan).items())


def test_a_part_that_cannot_be_imported_ends_the_rank_with_one_message(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.optimizer.name, config.optimizer.custom = "mine", {"_target_": "no_such_package.Optimizer"}
    process = start(make_plan(config))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "optimizer.custom: no_such_package.Optimizer cannot be imported" in output and "Traceback" not in output


def test_a_body_of_ones_own_layers_is_frozen_and_recomputed_like_any(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.sublinear = True
    config.model.backbone.name, config.model.backbone.custom = "narrow", own("narrow_body")
    detector = detector_of(make_plan(config), ALONE)
    assert isinstance(detector.backbone.body, Body)
    detector.backbone.body.freeze(1)
    assert not any(p.requires_grad for p in detector.backbone.body.get_submodule("conv").parameters())
    assert any(p.requires_grad for p in detector.backbone.body.get_submodule("layer1").parameters())


def test_torchs_own_optimizers_fit(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.optimizer.name = "adamw"
    config.optimizer.custom = {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.99], "weight_decay": 0.05}
    plan = make_plan(config)
    optimizer = optimizer_of(plan, detector_of(plan, ALONE))
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], list(group["betas"]), group["weight_decay"]) == (plan.schedule.lr, [0.9, 0.99], 0.05)


def backbone(custom: dict[str, Any]) -> object:
    return build_backbone(BackboneSettings(name="mine", custom=custom), nn.BatchNorm2d)


def norm(custom: dict[str, Any]) -> object:
    return norm_layers(ModelSettings(norm=NormSettings(name="mine", custom=custom)), bn_size=4, group=None).backbone(8)


def pool(custom: dict[str, Any]) -> object:
    return build_roi_pool(RoIPoolSettings(name="mine", custom=custom))


def optimizer(custom: dict[str, Any]) -> object:
    settings = Config().optimizer
    settings.custom = custom
    return build_optimizer(settings, nn.Linear(2, 3), lr=0.1, warmup_steps=0)


def learning_rate(custom: dict[str, Any]) -> object:
    return build_learning_rate(custom, SCHEDULE)


@pytest.mark.parametrize(
    ("build", "key", "custom", "words"),
    [
        (backbone, "model.backbone.custom", own("WithoutFreeze"), ["freeze(count)"]),
        (backbone, "model.backbone.custom", own("no_module"), ["a backbone is a torch module"]),
        (backbone, "model.backbone.custom", own("three_channels"), ["channels", "(8, 8, 16)", "four outputs"]),
        (backbone, "model.backbone.custom", own("TooFewOutputs", width=8), ["64 x 96", "(1, 16, 2, 3)"]),
        (backbone, "model.backbone.custom", own("NoSublinear", width=8), ["sublinear"]),
        (backbone, "model.backbone.custom", own("PatchNet", width=8, depth=5), ["could not be made", "depth"]),
        (backbone, "model.backbone.custom", own("PatchNet", width=8, norm="bn"), ["leave out norm"]),
        (norm, "model.norm.custom", own("no_module"), ["object, and not a torch module"]),
        (norm, "model.norm.custom", own("halving_norm"), ["(2, 64, 4, 4) to (2, 64, 2, 2)"]),
        (norm, "model.norm.custom", own("group_norm", groups=5), ["could not be made", "divisible"]),
        (pool, "model.roi_pool.custom", own("no_module"), ["object, and not a torch module"]),
        (pool, "model.roi_pool.custom", own("FlatPool"), ["(2, 392)", "(2, 7, 7, 8)"]),
        (optimizer, "optimizer.custom", own("no_module"), ["object, and not a torch.optim.Optimizer"]),
        (optimizer, "optimizer.custom", own("half_the_parameters"), ["not all that it was given"]),
        (optimizer, "optimizer.custom", own("SignMomentum", betta=0.5), ["could not be made", "betta"]),
        (learning_rate, "schedule.custom", own("no_module"), ["no method lr_at(step)"]),
        (learning_rate, "schedule.custom", own("Negative", floor=0), ["lr_at(4) is -3.0"]),
        (learning_rate, "schedule.custom", own("Crooked", floor=0), ["ZeroDivisionError", "own_parts.py"]),
    ],
)  # fmt: skip
def test_a_part_that_does_not_fit_its_slot_is_one_message_with_its_key(
    build: Callable[[dict[str, Any]], object], key: str, custom: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        build(custom)
    message = str(refused.value)
    assert message.startswith(f"{key}: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_what_fits_is_taken_and_built_in_parts_obey_the_same_contracts() -> None:
    for custom in (own("PatchNet", width=8), own("narrow_body")):
        assert isinstance(backbone(custom), nn.Module)
    assert isinstance(backbone({"_target_": "megdet.model.backbones._tiny"}), Body)
    assert isinstance(norm(own("group_norm", groups=4)), nn.GroupNorm)
    assert isinstance(norm({"_target_": "megdet.model.cgbn.CrossGPUBatchNorm2d"}), nn.Module)
    assert isinstance(pool(own("FinestLevelMaxPool")), own_parts.FinestLevelMaxPool)
    assert isinstance(pool({"_target_": "megdet.model.roi_align.RoIAlign"}), nn.Module)
    assert isinstance(optimizer({"_target_": "torch.optim.SGD", "momentum": 0.9}), torch.optim.SGD)
    assert isinstance(learning_rate(own("Cosine", floor=0)), own_parts.Cosine)
