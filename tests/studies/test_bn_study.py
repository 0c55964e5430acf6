"""Trained weights under other BN statistics."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

from megdet.errors import UserError
from megdet.launchers.local.one_run import run_local
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.planning.plan import make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.studies.bn_study import BNStudy, GroupNormalised, estimate_statistics, group_sizes
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader
from tests.training.test_run import config_of, folder_of


def statistics_of_the_stem(root: Path) -> list[torch.Tensor]:
    """Precise statistics of the first BN layer over two steps, and torch's cumulative average of the same batches."""
    detector = tiny_detector(bn_size=4)
    loader = tiny_loader(root, batch=8, bn_size=4, images_per_gpu=8, accumulation=1)
    reference = nn.BatchNorm2d(16, momentum=None).double()
    for step in islice(loader.epoch(0), 2):
        for batch in step.image_batches:
            for part in detector.backbone.body.conv1(detector._normalised(batch)).double().split(4):
                reference(part)
    estimate_statistics(detector, loader, images=16, device=torch.device("cpu"))
    stem = detector.backbone.body.bn1
    return [stem.running_mean, reference.running_mean, stem.running_var, reference.running_var]


def test_precise_statistics_are_the_mean_over_the_bn_batches(shapes_root: Path) -> None:
    ((mean, expected_mean, var, expected_var),) = run_ranks(1, statistics_of_the_stem, shapes_root)
    assert torch.allclose(mean.double(), expected_mean, atol=1e-5)
    assert torch.allclose(var.double(), expected_var, rtol=1e-4)


def kept_by_groups(root: Path) -> int:
    """How many BN batches a detector that is evaluated in groups still holds after two of them."""
    detector = tiny_detector(bn_size=4)
    loader = tiny_loader(root, batch=8, bn_size=4, images_per_gpu=4, accumulation=2)
    with torch.no_grad():
        for batch in next(iter(loader.epoch(0))).image_batches:
            GroupNormalised(detector)(batch)
    return sum(len(layer.step_batches) for layer in detector.modules() if isinstance(layer, CrossGPUBatchNorm2d))


def test_statistics_of_groups_are_not_kept(shapes_root: Path) -> None:
    """Those of 5,000 images by R50 were 1.1 GB."""
    assert run_ranks(1, kept_by_groups, shapes_root) == [0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Path:
    config = config_of(tmp_path_factory.mktemp("study"), shapes_root)
    config.gpus = 2
    plan = make_plan(config)
    assert run_local(plan) == "finished"
    return folder_of(plan)


@pytest.mark.slow
def test_the_running_average_is_scored_as_at_the_end_of_training_whatever_was_studied_before(trained: Path) -> None:
    study = BNStudy(trained)
    study.groups(4)
    study.precise(16)
    assert study.images_of(1) == study.plan.config.batch == study.images_of(study.plan.config.batch)
    with pytest.raises(UserError, match="--images 100000: takes 1 to"):
        study.images_of(100000)
    recorded = [line for line in read_journal(RunFolder(trained)) if line["kind"] == "epoch"][-1]
    found = study.running_average()
    assert {name: found[name] for name in found} == {name: recorded[name] for name in found}


@pytest.mark.slow
def test_a_run_with_frozen_bn_has_nothing_to_study(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.bn_size, config.schedule.epochs = 0, 1
    config.schedule.milestones, config.schedule.factors = [], []
    plan = make_plan(config)
    assert run_local(plan) == "finished"
    with pytest.raises(UserError, match="frozen BN"):
        BNStudy(folder_of(plan))


def test_a_folder_without_a_trained_run_is_refused(tmp_path: Path, shapes_root: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        BNStudy(tmp_path)
    plan = make_plan(config_of(tmp_path, shapes_root))
    folder = folder_of(plan)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.to_json())
    with pytest.raises(UserError, match=r"no checkpoint\.pt"):
        BNStudy(folder)


@pytest.mark.parametrize("text", ["a", "1,b", "0", "-4", "1.5"])
def test_sizes_of_groups_that_are_no_numbers_are_explained(text: str) -> None:
    with pytest.raises(UserError, match=r"--groups .*such as 1,4,16"):
        group_sizes(text)
    assert group_sizes("1, 4,16") == [1, 4, 16] and group_sizes("") == []
