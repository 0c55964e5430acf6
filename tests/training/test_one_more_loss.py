"""Adding a loss and a count takes nothing but reporting them: the loop, the records and MLflow take them along."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mlflow import MlflowClient
from torch import Tensor

from megdet.data.batch import ImageBatch
from megdet.model.detector import IMAGE_MEAN, IMAGE_STD, Detector
from megdet.model.output import Detections, TrainingOutput
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import OWN_COLUMNS, read_journal
from megdet.training.attempt import Attempt
from megdet.training.distributed import Ranks
from megdet.training.divergence import LossWatch
from megdet.training.loop import data_parallel, train_epoch
from megdet.training.totals import EpochTotals, Step
from tests.ranks import run_ranks
from tests.runs.folders import owned
from tests.tiny import tiny_detector, tiny_loader
from tests.tracking.databases import new_database
from tests.training.test_run import EPOCHS, STEPS_PER_EPOCH, config_of, folder_of

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

BATCH, LR = 8, 0.5
STEM = "backbone.body.conv1.weight"


class QuietStem(Detector):
    """A detector with one more loss, the mean square of an image's first features, and one more count."""

    def forward(self, batch: ImageBatch) -> TrainingOutput | list[Detections]:
        output = super().forward(batch)
        if not isinstance(output, TrainingOutput):
            return output
        energy = self.backbone.body.get_submodule("conv1")(self._normalised(batch)).square().mean((1, 2, 3))
        objects = torch.tensor(sum(map(len, batch.boxes)))
        return replace(
            output,
            losses={**output.losses, "stem_energy": energy.sum()},
            counts={**output.counts, "objects": objects},
        )


def one_step(root: Path, detector_class: type[Detector]) -> tuple[Step, dict[str, Tensor], dict[str, Tensor]]:
    """What a step of two passes says, and the weights before and after it."""
    detector = tiny_detector(bn_size=2)
    detector.__class__ = detector_class
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    steps: list[Step] = []
    train_epoch(
        data_parallel(detector),
        islice(tiny_loader(root, batch=BATCH, bn_size=2, images_per_gpu=2, accumulation=2).epoch(0), 1),
        optimizer=torch.optim.SGD(detector.parameters(), lr=LR),
        lr_at=lambda step: LR,
        first_step=0,
        batch=BATCH,
        device=torch.device("cpu"),
        bf16=False,
        clip_grad_norm=None,
        watch=LossWatch(),
        totals=EpochTotals(),
        stop_requested=lambda: False,
        on_step=lambda step, seconds: steps.append(step),
    )
    return steps[0], before, detector.state_dict()


def reference(root: Path, weight: Tensor) -> tuple[float, Tensor, int]:
    """In one process and float64: the new loss of the step's images, its gradient, and how many objects they have."""
    weight = weight.double().requires_grad_()
    loss, objects = torch.zeros((), dtype=torch.float64), 0
    loader = tiny_loader(root, batch=BATCH, bn_size=2, images_per_gpu=BATCH, accumulation=1)
    for batch in next(loader.epoch(0)).image_batches:
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        for pixels, (height, width), boxes in zip(batch.images.double(), batch.sizes, batch.boxes, strict=True):
            image = torch.zeros_like(pixels)
            image[:, :height, :width] = ((pixels / 255 - mean) / std)[:, :height, :width]
            loss = loss + F.conv2d(image[None], weight, stride=2, padding=1).square().mean() / BATCH
            objects += len(boxes)
    loss.backward()
    assert weight.grad is not None
    return loss.item(), weight.grad, objects


def test_a_step_with_one_more_loss_adds_its_gradient_and_reports_it(shapes_root: Path) -> None:
    plain, plain_before, plain_after = run_ranks(2, one_step, shapes_root, Detector)[0]
    ((loss, gradient, objects),) = run_ranks(1, reference, shapes_root, plain_before[STEM])
    for step, before, after in run_ranks(2, one_step, shapes_root, QuietStem):
        assert torch.equal(before[STEM], plain_before[STEM])
        assert list(step.losses) == [*plain.losses, "stem_energy"]
        assert step.losses["stem_energy"] == pytest.approx(loss, rel=1e-5)
        assert {name: step.losses[name] for name in plain.losses} == plain.losses
        assert step.loss == pytest.approx(plain.loss + loss, rel=1e-5)
        assert step.counts == {**plain.counts, "objects": objects}
        moved = plain_after[STEM].double() - after[STEM].double()
        torch.testing.assert_close(moved, LR * gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item())
        assert gradient.abs().max() > 0.01, "a gradient that would be missed"
        assert all(torch.equal(value, plain_after[name]) for name, value in after.items() if name != STEM)


class NeverStopped:
    """Signals stay those of the test's process."""

    def requested(self) -> bool:
        return False

    requeue_wanted = requested


def attempt(plan: Plan) -> int:
    """A whole run of the detector with one more loss, as one of two ranks."""
    ranks = Ranks(dist.get_rank(), dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    attempt = Attempt(plan, RunFolder(folder_of(plan)).owned_by("test"), ranks, NeverStopped())  # type: ignore[arg-type]
    attempt.detector.__class__ = QuietStem
    return attempt.go()


def test_a_run_with_one_more_loss_and_count_has_both_in_its_journal_and_in_mlflow(
    tmp_path: Path, shapes_root: Path
) -> None:
    uri = new_database(tmp_path / "store")
    config = config_of(tmp_path, shapes_root)
    config.gpus = 2
    config.tracking.enabled, config.tracking.uri = True, uri
    plan = make_plan(config)
    folder = owned(folder_of(plan))
    folder.write_plan(plan.to_json())
    assert run_ranks(2, attempt, plan) == [0, 0]

    lines = read_journal(folder)
    steps, epochs = ([line for line in lines if line["kind"] == kind] for kind in ("step", "epoch"))
    reported = {"rpn_objectness", "rpn_box", "roi_class", "roi_box", "stem_energy", "objects"}
    others = {name for line in [*steps, *epochs] for name in line} - OWN_COLUMNS - reported
    assert all(re.fullmatch(r"(rpn|roi)_(positive|negative|ratio_percent)", name) for name in others), others
    energies = [line["stem_energy"] for line in steps]
    assert len(energies) == EPOCHS * STEPS_PER_EPOCH and min(energies) > 0
    annotations = json.loads((shapes_root / "annotations/instances_train2017.json").read_text())["annotations"]
    objects = sum(not annotation["iscrowd"] for annotation in annotations)  # an epoch shows every image once
    assert [line["objects"] for line in epochs] == EPOCHS * [objects]
    for epoch, line in enumerate(epochs):
        own = steps[epoch * STEPS_PER_EPOCH :][:STEPS_PER_EPOCH]
        for name in ("loss", "rpn_objectness", "rpn_box", "roi_class", "roi_box", "stem_energy", "grad_norm"):
            assert line[name] == pytest.approx(fmean(step[name] for step in own)), name

    client = MlflowClient(uri)
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    for curve, expected in (
        ("stem_energy", [line["stem_energy"] for line in epochs]),
        ("objects", EPOCHS * [objects]),
        ("step/stem_energy", energies),
    ):
        points = sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, curve))
        assert [value for _, value in points] == pytest.approx(expected), curve
