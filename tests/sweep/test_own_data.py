"""Own data in a sweep: planned from its files, and part of what a run is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.data import resolve
from megdet.data.data_set import read_data
from megdet.data.settings import DataSettings
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import folder_of
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.points import Point, plan_points
from megdet.sweep.sweep import run_points
from tests.data.own_set import Content, write_own_set
from tests.runs.folders import owned
from tests.tiny import tiny_model


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def ask(data: DataSettings, **more: object) -> Asked:
    config = Config(batch=4, bn_size=4, **more)  # type: ignore[arg-type]
    config.model = tiny_model()
    config.data = data
    config.cluster.gpus_per_node, config.tracking.enabled = 1, False
    return Asked((), config)


def train(plan: Plan) -> Status:
    """As a rank leaves a run that it has trained."""
    folder = owned(folder_of(plan).path)
    with Journal(folder) as journal:
        journal.event("started", step=0, data_sha256=read_data(plan.config.data).facts.fingerprint)
        journal.step(2, epoch=1.0)
    folder.write_state(RunState(Status.FINISHED, attempts=1, started="2020-01-01T00:00:00+00:00", step=2))
    return Status.FINISHED


def point_of(asked: Asked) -> Point:
    [point] = plan_points([asked], to_run_here=True)
    return point


def test_a_model_with_masks_is_refused_where_data_has_none_before_a_run_folder_is_there(tmp_path: Path) -> None:
    def masked(train: Content, val: Content) -> None:
        for entry in (*train["annotations"], *val["annotations"]):
            x, y, w, h = entry["bbox"]
            entry["segmentation"] = [[x, y, x + w, y, x + w / 2, y + h]]

    without, with_masks = ask(write_own_set(tmp_path / "a")), ask(write_own_set(tmp_path / "b", change=masked))
    for asked in (without, with_masks):
        asked.config.model.mask.name = "head"
    point = point_of(without)
    assert point.plan is None and point.why is not None and "model.mask.name=null" in point.why
    assert not Path("runs").exists()
    boxes_alone = point_of(ask(with_masks.config.data)).plan
    plan = point_of(with_masks).plan
    assert plan is not None and plan.memory_gb and boxes_alone is not None and boxes_alone.memory_gb
    assert plan.memory_gb > boxes_alone.memory_gb
    assert plan.config.data.fingerprint == boxes_alone.config.data.fingerprint
    assert plan.config.data.masks_fingerprint and boxes_alone.config.data.masks_fingerprint is None


def other_boxes(train: Content, val: Content) -> None:
    for entry in train["annotations"]:
        entry["bbox"] = [1, 1, 20, 20]


def test_a_plan_has_the_counts_of_the_files_and_means_the_same_when_read_back(tmp_path: Path) -> None:
    plan = point_of(ask(write_own_set(tmp_path / "set"))).plan
    assert plan is not None and plan.schedule.steps_per_epoch == 2
    assert (plan.config.data.train_images, plan.config.data.num_classes) == (8, 2)
    assert Plan.from_json(plan.to_json()).run_id == plan.run_id


def test_the_same_line_with_other_data_is_another_run_and_with_a_copy_the_same(tmp_path: Path) -> None:
    first = ask(write_own_set(tmp_path / "a"))
    assert run_points([first], launcher=LocalLauncher(run=train)) == 0
    assert point_of(first).shown == "finished"
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    copy = point_of(ask(replace(first.config.data, root="copy", workers=3)))
    assert (copy.shown, copy.plan and copy.plan.run_id) == ("finished", point_of(first).plan.run_id)  # type: ignore[union-attr]
    other = point_of(ask(write_own_set(tmp_path / "b", change=other_boxes)))
    assert other.shown == "new" and other.plan is not None and other.plan.run_id != copy.plan.run_id  # type: ignore[union-attr]
    write_own_set(tmp_path / "a", change=other_boxes)
    assert point_of(first).plan.run_id == other.plan.run_id  # type: ignore[union-attr]


def test_a_set_known_by_name_with_another_content_is_refused_with_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "COCO_COUNTS", (8, 4, 2))

    def coco_like(root: Path) -> Asked:
        write_own_set(root, change=other_boxes if root.name == "b" else None)
        for folder, name, labels in (("pictures", "train2017", "learn"), ("elsewhere", "val2017", "check")):
            (root / folder).rename(root / name)
            (root / "annotations").mkdir(exist_ok=True)
            (root / "labels" / f"{labels}.json").rename(root / "annotations" / f"instances_{name}.json")
        return ask(DataSettings(root=root.name, train_images=8, val_images=4, num_classes=2, min_size=64, max_size=107))

    first, second = coco_like(tmp_path / "a"), coco_like(tmp_path / "b")
    plan = point_of(first).plan
    assert plan is not None and plan.config.data.fingerprint is None
    assert run_points([first], launcher=LocalLauncher(run=train)) == 0
    assert point_of(first).shown == "finished"
    assert make_plan(plan.config).run_id == plan.run_id
    refused = point_of(second)
    assert refused.shown == "invalid"
    for part in (read_data(first.config.data).facts.fingerprint, "sweep.on_existing=force", "data.name or runs_dir"):
        assert part in refused.why
    second.config.sweep.on_existing = "force"
    assert run_points([second], launcher=LocalLauncher(run=train)) == 0
    second.config.sweep.on_existing = "resume"
    assert point_of(second).shown == "finished"


def test_a_run_that_has_made_no_step_may_go_on_with_mended_data(tmp_path: Path) -> None:
    asked = ask(write_own_set(tmp_path / "a"))
    plan = point_of(asked).plan
    assert plan is not None
    folder = owned(folder_of(plan).path)
    with Journal(folder) as journal:
        journal.event("started", step=0, data_sha256="0" * 12)
    folder.write_state(RunState(Status.FAILED, attempts=1, started="2020-01-01T00:00:00+00:00"))
    assert point_of(asked).shown == "failed"


def test_a_mistake_in_the_data_is_told_before_there_is_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def negative(train: Content, val: Content) -> None:
        for entry in train["annotations"]:
            entry["bbox"][2] *= -1

    assert run_points([ask(write_own_set(tmp_path / "a", change=negative))], launcher=LocalLauncher(run=train)) == 2
    said = capsys.readouterr().err
    assert "annotations[0] (id 1) has bbox" in said and "more like it" in said and said.count("\n") == 1
    assert not Path("runs").exists()


def test_repairs_are_said_once_for_all_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def without_ids(train: Content, val: Content) -> None:
        for entry in train["annotations"]:
            del entry["id"]

    data = write_own_set(tmp_path / "a", change=without_ids)
    asked = [ask(data, seed=seed) for seed in range(3)]
    for one in asked:
        one.config.sweep.dry_run = True
    assert run_points(asked, launcher=LocalLauncher(run=train)) == 0
    assert capsys.readouterr().err.count("numbered anew") == 1


def test_generated_sets_have_the_version_of_their_generator_in_their_id() -> None:
    asked = ask(
        DataSettings(
            name="shapes", root="drawn", train_images=8, val_images=2, num_classes=6, min_size=64, max_size=107
        )
    )
    plan = point_of(asked).plan
    assert plan is not None
    content = json.loads(plan.to_json())["config"]["data"]
    assert content["fingerprint"] == "shapes-1"
    other = make_plan(replace(plan.config, data=replace(plan.config.data, fingerprint="shapes-2")))
    assert other.run_id != plan.run_id
