"""The plan: layouts, ids, refusals. The rows are the paper's Tables 2 and 3 and the design's table of layouts."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model.settings import BackboneSettings
from megdet.planning.identity import experiment_id_of, run_id_of
from megdet.planning.layout import Layout
from megdet.planning.plan import Plan, config_in, make_plan

PAPER = ClusterSettings(name="paper", nodes=16, gpus_per_node=8)


def config_of(batch: int, bn_size: int, *, cluster: ClusterSettings = PAPER, **asked: object) -> Config:
    return Config(batch=batch, bn_size=bn_size, cluster=replace(cluster), **asked)  # type: ignore[arg-type]


def layout_of(batch: int, bn_size: int, *, cluster: ClusterSettings = PAPER, **asked: object) -> Layout:
    return make_plan(config_of(batch, bn_size, cluster=cluster, **asked)).layout


def refusal_of(batch: int, bn_size: int, *, cluster: ClusterSettings = PAPER, **asked: object) -> str:
    with pytest.raises(UserError) as refused:
        layout_of(batch, bn_size, cluster=cluster, **asked)
    return str(refused.value)


def set_in(config: Config, key: str, value: object) -> None:
    place: Any = config
    *path, last = key.split(".")
    for part in path:
        place = getattr(place, part)
    assert hasattr(place, last), key
    setattr(place, last, value)


def one_node(gpus_per_node: int, **limits: object) -> ClusterSettings:
    return ClusterSettings(nodes=1, gpus_per_node=gpus_per_node, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "bn_size", "gpus", "images_per_gpu", "bn_group"),
    [
        (16, 0, 8, 2, 1),
        (2, 2, 2, 1, 2),
        (4, 4, 4, 1, 4),
        (8, 8, 8, 1, 8),
        (16, 16, 8, 2, 8),
        (32, 32, 8, 4, 8),
        (64, 64, 8, 8, 8),
        (64, 32, 16, 4, 8),
        (64, 16, 32, 2, 8),
        (128, 32, 32, 4, 8),
        (128, 16, 64, 2, 8),
        (256, 32, 64, 4, 8),
        (256, 16, 128, 2, 8),
    ],
)
def test_auto_gives_the_gpus_of_the_rows_of_table_3(
    batch: int, bn_size: int, gpus: int, images_per_gpu: int, bn_group: int
) -> None:
    layout = layout_of(batch, bn_size)
    assert (layout.gpus, layout.images_per_gpu, layout.accumulation) == (gpus, images_per_gpu, 1)
    assert (layout.bn_group, layout.bn_splits) == (bn_group, 1)
    assert layout.nodes == max(1, gpus // 8) and layout.gpus_per_node == min(gpus, 8)
    assert layout.sublinear == (bn_size >= 32)


@pytest.mark.parametrize(("batch", "scale"), [(16, 1), (32, 1), (64, 1), (64, 0.5), (128, 0.5)])
def test_the_rows_of_table_2_plan_with_frozen_bn_and_two_images_a_gpu(batch: int, scale: float) -> None:
    config = config_of(batch, 0)
    config.lr.scale = scale
    plan = make_plan(config)
    assert (plan.layout.gpus, plan.layout.images_per_gpu, plan.layout.accumulation) == (batch // 2, 2, 1)
    assert plan.schedule.lr == pytest.approx(0.02 * batch / 16 * scale)
    assert plan.schedule.steps == 11 * (118287 // batch)


def test_the_papers_row_of_bn_2_on_8_gpus_has_groups_of_one_and_auto_has_groups_of_two() -> None:
    auto, asked = layout_of(16, 2), layout_of(16, 2, gpus=8)
    assert (auto.gpus, auto.images_per_gpu, auto.bn_group, auto.nodes) == (16, 1, 2, 2)
    assert (asked.gpus, asked.images_per_gpu, asked.bn_group, asked.bn_splits) == (8, 2, 1, 1)


@pytest.mark.parametrize(
    ("images_per_gpu", "gpus", "expected"),
    [
        # images_per_gpu, gpus -> accumulation, bn_group, bn_splits
        (8, 1, (1, 1, 2)),
        (4, 2, (1, 1, 1)),
        (2, 4, (1, 2, 1)),
        (2, 2, (2, 2, 1)),
        (1, 8, (1, 4, 1)),
        (4, 1, (2, 1, 1)),
    ],
)
def test_images_per_gpu_is_honoured(images_per_gpu: int, gpus: int, expected: tuple[int, int, int]) -> None:
    layout = layout_of(8, 4, gpus=gpus, images_per_gpu=images_per_gpu)
    assert (layout.images_per_gpu, layout.gpus) == (images_per_gpu, gpus)
    assert (layout.accumulation, layout.bn_group, layout.bn_splits) == expected


def test_accumulation_stands_in_for_gpus_in_the_batch() -> None:
    layout = layout_of(256, 32, gpus=1, cluster=one_node(1))
    assert (layout.images_per_gpu, layout.accumulation, layout.bn_group) == (32, 8, 1)


def test_accumulation_does_not_stand_in_for_gpus_in_the_bn_size() -> None:
    refusal = refusal_of(256, 32, gpus=1, cluster=one_node(1, max_images_per_gpu=16))
    assert "bn_size=32" in refusal and "cluster.max_images_per_gpu=16" in refusal
    assert "cluster.max_images_per_gpu=32" in refusal and "bn_size=16" in refusal


def test_auto_on_a_smaller_cluster_takes_all_gpus_and_accumulates() -> None:
    layout = layout_of(256, 32, cluster=one_node(8))
    assert (layout.gpus, layout.images_per_gpu, layout.accumulation, layout.bn_group) == (8, 4, 8, 8)
    alone = layout_of(16, 16, cluster=one_node(1))
    assert (alone.gpus, alone.images_per_gpu, alone.accumulation) == (1, 16, 1)


@pytest.mark.parametrize(
    ("gb", "expected"),  # of memory; images_per_gpu, accumulation
    [(80.0, (16, 1)), (12.0, (8, 2)), (None, (4, 4)), (2.0, (1, 16))],
)
def test_with_frozen_bn_a_pass_holds_what_fits_up_to_what_is_padded_together(
    gb: float | None, expected: tuple[int, int]
) -> None:
    for asked in ("auto", 1):
        layout = layout_of(16, 0, cluster=one_node(1, gpu_memory_gb=gb), gpus=asked)
        assert (layout.images_per_gpu, layout.accumulation) == expected


def test_where_memory_cannot_be_predicted_frozen_bn_has_the_papers_two_images_a_gpu() -> None:
    config = config_of(16, 0, gpus=1, cluster=one_node(1, gpu_memory_gb=80.0))
    config.model.backbone = BackboneSettings(name="mine", custom={"_target_": "a.B"}, weights="none", frozen_stages=0)
    assert make_plan(config).layout.images_per_gpu == 2


def test_auto_takes_the_most_gpus_that_divide_evenly() -> None:
    # 12 GPUs are no whole number of nodes, so the next that fits: 6.
    layout = layout_of(12, 4)
    assert (layout.gpus, layout.images_per_gpu, layout.bn_group) == (6, 2, 2)


def test_every_layout_keeps_the_promises_of_batch_and_bn_size() -> None:
    laid_out = 0
    clusters = [PAPER, one_node(3), ClusterSettings(nodes=2, gpus_per_node=4, max_images_per_gpu=4)]
    batches, bn_sizes, gpus = (1, 6, 8, 12, 16, 48), (0, 1, 2, 3, 8, 12, 16), ("auto", 1, 3, 8)
    for cluster, batch, bn_size, asked, images in itertools.product(clusters, batches, bn_sizes, gpus, ("auto", 4)):
        try:
            layout = layout_of(batch, bn_size, cluster=cluster, gpus=asked, images_per_gpu=images)
        except UserError:
            continue
        laid_out += 1
        assert layout.gpus * layout.images_per_gpu * layout.accumulation == batch
        if bn_size:
            assert layout.bn_group * layout.images_per_gpu == bn_size * layout.bn_splits
            assert 1 in (layout.bn_group, layout.bn_splits)
            assert layout.gpus_per_node % layout.bn_group == 0
        assert layout.nodes * layout.gpus_per_node == layout.gpus
        assert layout.nodes <= cluster.nodes and layout.gpus_per_node <= int(cluster.gpus_per_node)
        assert layout.images_per_gpu <= (cluster.max_images_per_gpu or batch)
        assert asked in ("auto", layout.gpus) and images in ("auto", layout.images_per_gpu)
    assert laid_out > 300


def test_a_bn_group_leaves_its_node_only_where_that_is_allowed() -> None:
    inside = ClusterSettings(nodes=4, gpus_per_node=2)
    refusal = refusal_of(8, 8, gpus=8, images_per_gpu=1, cluster=inside)
    assert "cluster.bn_across_nodes=false" in refusal and "cluster.bn_across_nodes=true" in refusal
    layout = layout_of(8, 8, gpus=8, images_per_gpu=1, cluster=replace(inside, bn_across_nodes=True))
    assert (layout.bn_group, layout.nodes) == (8, 4)


@pytest.mark.parametrize(
    ("asked", "names", "ways_out"),
    [
        ({"batch": 16, "bn_size": 32}, ["batch=16", "bn_size=32"], ["bn_size=16", "batch=32"]),
        ({"batch": 24, "bn_size": 16}, ["batch=24", "bn_size=16"], ["bn_size=12", "bn_size=24", "batch=32"]),
        ({"batch": 16, "bn_size": 16, "gpus": 3}, ["gpus=3"], ["gpus=2", "gpus=4", "batch=48"]),
        ({"batch": 24, "bn_size": 0, "gpus": 12}, ["gpus=12", "cluster.gpus_per_node=8"], ["gpus=8", "gpus=24"]),
        ({"batch": 512, "bn_size": 16, "gpus": 256}, ["gpus=256", "cluster.nodes=16"], ["cluster.nodes=32"]),
        ({"batch": 16, "bn_size": 16, "images_per_gpu": 3}, ["images_per_gpu=3"], ["images_per_gpu=2 (or auto)"]),
        ({"batch": 12, "bn_size": 4, "images_per_gpu": 6}, ["images_per_gpu=6"], ["bn_size=6", "bn_size=3"]),
    ],
)  # fmt: skip
def test_a_refusal_names_knobs_numbers_and_ways_out(
    asked: dict[str, Any], names: list[str], ways_out: list[str]
) -> None:
    refusal = refusal_of(**asked)
    reason, _, ways = refusal.partition("\nWhat would work: ")
    assert all(name in reason for name in names), refusal
    assert all(way in ways for way in ways_out), refusal


def test_every_way_out_that_a_refusal_names_can_be_planned() -> None:
    tried = 0
    for batch, bn_size, gpus, cluster in itertools.product(
        (6, 16, 24, 50), (0, 4, 16, 32), (2, 3, 12, 200), (PAPER, one_node(2, max_images_per_gpu=4))
    ):
        asked = {"batch": batch, "bn_size": bn_size, "gpus": gpus}
        try:
            layout_of(**asked, cluster=cluster)
            continue
        except UserError as error:
            ways = str(error).partition("What would work: ")[2].rstrip(".")
        assert ways, asked
        for way in ways.split("; "):
            config = config_of(**asked, cluster=cluster)
            for change in way.replace(" (or auto)", "").split(" "):
                knob, _, value = change.partition("=")
                owner = config.cluster if knob.startswith("cluster.") else config
                setattr(owner, knob.removeprefix("cluster."), json.loads(value) if value != "auto" else value)
            make_plan(config)
            tried += 1
    assert tried > 50


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("batch", 0), ("batch", -16), ("batch", 16.0), ("batch", "???"), ("batch", True), ("batch", None),
        ("bn_size", -1), ("bn_size", "16"), ("gpus", 0), ("gpus", "eight"), ("images_per_gpu", 0), ("seed", -1),
        ("sublinear", "yes"), ("precision", "fp16"), ("checkpoint_every_min", -1),
        ("lr.base", 0), ("lr.base", float("nan")), ("lr.scale", -1.0), ("lr.base_batch", 0),
        ("optimizer.momentum", 2.0), ("optimizer.clip_grad_norm", -1.0),
        ("schedule.epochs", 0), ("schedule.epochs", "???"), ("schedule.milestones", [10, 8]),
        ("schedule.milestones", [8]), ("schedule.milestones", [8, 11]), ("schedule.factors", [0.1, 0.0]),
        ("model.backbone.name", "resnet101"), ("model.backbone.frozen_stages", 6), ("model.backbone", "tiny"),
        ("model.bn_in", ["heads"]), ("model.bn_in", []), ("model.bn_in", "backbone"), ("model.norm.name", "gn"),
        ("model.anchors.sizes", [32, 64]), ("model.anchors.sizes", []), ("model.anchors.ratios", [1.0, -1.0]),
        ("model.rpn.nms", 1.5), ("model.rpn.negative_iou", 0.8), ("model.roi_pool.name", "crop"),
        ("data.train_images", 0), ("data.train_images", 15), ("data.max_size", 400), ("data.workers", -1),
        ("eval.score_threshold", -0.1), ("cluster.nodes", 0), ("cluster.max_images_per_gpu", 0),
        ("cluster.time_min", 0), ("cluster.time_min", 2), ("cluster.signal_delay_s", 1), ("cluster.max_retries", -1),
        ("cluster.array_parallelism", 0), ("cluster.mem_gb_per_gpu", 0), ("cluster.cpus_per_gpu", 0),
        ("cluster.setup", "module load cuda"), ("cluster.srun_args", [""]), ("cluster.partition", ""),
        ("cluster.sbatch_options", {"exclude": 3}), ("cluster.name", "my cluster"), ("cluster.request_gpus", 1),
        ("sweep.on_invalid", "ignore"), ("sweep.on_existing", "redo"), ("sweep.max_gpu_hours", -1.0),
        ("sweep.wait", "no"), ("tracking.experiment", ""), ("tracking.uri", ""), ("runs_dir", ""),
        ("schedule.name", "../normal"), ("model.name", "a/b"), ("data.name", ""), ("data.root", ""),
        ("seed", 2**31), ("batch", 2**63 - 1), ("gpus", 999_999), ("data.train_images", 10**30),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_by_its_name(knob: str, value: object) -> None:
    config = config_of(16, 16)
    set_in(config, knob, value)
    with pytest.raises(UserError, match=rf"^{re.escape(knob)}[= ]|{re.escape(knob)}=") as refused:
        make_plan(config)
    assert "\n" not in str(refused.value)


def test_frozen_stages_without_weights_are_refused() -> None:
    config = config_of(16, 16)
    config.model.backbone.weights = "none"
    match = r"model\.backbone\.frozen_stages=2 with model\.backbone\.weights=none.*model\.backbone\.frozen_stages=0"
    with pytest.raises(UserError, match=match):
        make_plan(config)


def test_imagenet_weights_for_a_backbone_without_are_refused() -> None:
    config = config_of(16, 16)
    config.model.backbone.name = "tiny"
    match = r"model\.backbone\.weights=imagenet.*model\.backbone\.name=tiny.*model\.backbone\.weights=none"
    with pytest.raises(UserError, match=match):
        make_plan(config)


def test_sublinear_is_on_from_bn_32_unless_asked_otherwise_and_never_changes_the_ids() -> None:
    plans = {s: make_plan(config_of(64, 32, sublinear=s)) for s in ("auto", True, False)}
    assert [plans[s].layout.sublinear for s in ("auto", True, False)] == [True, True, False]
    assert len({plan.run_id for plan in plans.values()}) == 1
    assert not make_plan(config_of(16, 16)).layout.sublinear
    assert any("sublinear" in note and "bn_size >= 32" in note for note in plans["auto"].notes)
    assert any("sublinear" in note and "as asked" in note for note in plans[True].notes)


def test_a_plan_survives_its_json_unchanged() -> None:
    for batch, bn_size in ((16, 0), (256, 32)):
        config = config_of(batch, bn_size, gpus=8)
        config.schedule.warmup_epochs, config.schedule.warmup_images = None, 4000
        plan = make_plan(config, commit="0123abc", dirty=True)
        assert Plan.from_json(plan.to_json()) == plan
        assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_a_plan_does_not_follow_later_changes_of_its_config() -> None:
    config = config_of(16, 16)
    plan = make_plan(config)
    config.lr.base = 1.0
    config.schedule.milestones.append(11)
    assert plan.config.lr.base == 0.02 and plan.config.schedule.milestones == [8, 10]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("config.lr.base", 0.03, ["schedule.lr is 0.02", "0.03 by the config"]),
        ("config.batch", 32, ["b16-bn16", "b32-bn16"]),
        ("schedule.lr", 0.04, ["schedule.lr is 0.04 there, and 0.02 by the config"]),
        ("schedule.milestones", [[1, 0.1]], ["schedule.milestones is [[1, 0.1]]"]),
        ("layout.accumulation", 2, ["layout.accumulation is 2 there, and 1"]),
        ("layout.images_per_gpu", "2", ["layout.images_per_gpu is 2 there"]),
        ("layout.extra", 1, ["layout.extra is 1 there, and no part of a plan"]),
        ("notes", [], ["notes"]),
        ("name", "best", ["name is best"]),
        ("run_id", "b16-bn16-normal-s0-00000000", ["run_id"]),
        ("experiment_id", "0" * 12, ["experiment_id"]),
        ("dirty", "no", ["dirty is no"]),
        ("config.bn", 16, ["config has bn, which this megdet does not know"]),
        ("config.model.rpn.nms2", 16, ["rpn has nms2"]),
        ("config.model", 5, ["model is 5"]),
        ("config.cluster.gpus_per_node", "auto", ["cluster.gpus_per_node=auto"]),
        ("config.log_every", 0, ["log_every=0"]),
        ("config.model.backbone", "resnet50", ["before settings were nested"]),
        ("config", None, ["config is null"]),
    ],
)
def test_an_edited_plan_is_refused_with_what_differs(key: str, value: object, words: list[str]) -> None:
    values = json.loads(make_plan(config_of(16, 16)).to_json())
    place = values
    *path, last = key.split(".")
    for part in path:
        place = place[part]
    place[last] = value
    with pytest.raises(UserError) as refused:
        Plan.from_json(json.dumps(values))
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize("key", ["run_id", "layout", "layout.gpus", "schedule.steps_per_epoch", "config.lr", "config"])
def test_a_plan_with_something_missing_is_refused(key: str) -> None:
    values = json.loads(make_plan(config_of(16, 16)).to_json())
    place = values
    *path, last = key.split(".")
    for part in path:
        place = place[part]
    del place[last]
    with pytest.raises(UserError, match=re.escape(key)):
        Plan.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00"])
def test_a_damaged_plan_is_one_message(text: str) -> None:
    for read in (Plan.from_json, config_in):
        with pytest.raises(UserError, match=r"plan\.json is damaged"):
            read(text)


def test_what_was_asked_can_be_read_of_a_plan_whose_notes_another_version_wrote() -> None:
    config = config_of(16, 16)
    values = json.loads(make_plan(config).to_json())
    values["notes"] = ["in other words"]
    assert config_in(json.dumps(values)) == config
    values["config"]["batch"] = 32
    with pytest.raises(UserError, match=r"its config now means b32-bn16"):
        config_in(json.dumps(values))


def test_facts_of_the_machine_that_planned_are_kept() -> None:
    config = config_of(16, 16, cluster=one_node(3))
    config.data.root, config.tracking.uri = "/elsewhere", "sqlite:////elsewhere/mlflow.db"
    plan = make_plan(config, commit="0123abc", dirty=True)
    assert Plan.from_json(plan.to_json()) == plan
    assert (plan.commit, plan.dirty, plan.config.cluster.gpus_per_node) == ("0123abc", True, 3)


def test_a_plan_refuses_another_number_of_ranks() -> None:
    plan = make_plan(config_of(16, 16))
    plan.check_ranks(8)
    with pytest.raises(UserError, match=r"8 ranks.*WORLD_SIZE=4"):
        plan.check_ranks(4)


def test_ids_do_not_depend_on_where_a_run_is_or_who_watches() -> None:
    plain = make_plan(config_of(16, 16))
    moved = config_of(16, 16, gpus=1, images_per_gpu=16, sublinear=True, runs_dir="/elsewhere", log_every=1)
    moved.cluster = one_node(1)
    moved.data.root, moved.data.workers = "/data", 0
    moved.tracking.enabled, moved.sweep.dry_run, moved.checkpoint_every_min = False, True, 1.0
    other = make_plan(moved, commit="abc", dirty=True)
    assert (plain.run_id, plain.experiment_id, plain.name) == (other.run_id, other.experiment_id, other.name)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("batch", 32), ("bn_size", 8), ("precision", "bf16"), ("lr.scale", 0.5), ("optimizer.momentum", 0.8),
        ("optimizer.clip_grad_norm", 10.0), ("schedule.warmup_epochs", 0.5),
        ("model.backbone.weights", "other.pth"), ("model.rpn.nms", 0.6), ("model.roi_pool.resolution", 14),
        ("model.bn_in", ["backbone"]), ("data.flip", False), ("data.min_size", 600), ("eval.score_threshold", 0.01),
    ],
)  # fmt: skip
def test_ids_depend_on_everything_that_decides_what_is_learned(knob: str, value: object) -> None:
    config = config_of(16, 16)
    set_in(config, knob, value)
    assert experiment_id_of(config) != experiment_id_of(Config())
    assert run_id_of(config) != run_id_of(Config())


def test_the_seed_changes_the_run_and_not_the_experiment() -> None:
    first, second = make_plan(config_of(16, 16)), make_plan(config_of(16, 16, seed=1))
    assert first.experiment_id == second.experiment_id
    assert first.run_id != second.run_id
    assert (first.name, second.name) == ("b16-bn16-normal-s0", "b16-bn16-normal-s1")
    assert second.run_id.startswith("b16-bn16-normal-s1-")


def test_ids_are_equal_for_equal_meanings() -> None:
    config = Config()
    config.lr.scale, config.lr.base_batch = 1, 16
    config.schedule.warmup_epochs = 1
    config.model.bn_in = ["fpn", "backbone"]
    assert run_id_of(config) == run_id_of(Config())


def test_the_ids_of_the_default_experiment_stay_what_they_are() -> None:
    # A change here orphans every finished run: only where the meaning of an experiment has changed.
    assert (run_id_of(Config()), experiment_id_of(Config())) == ("b16-bn16-normal-s0-76b3de96", "bfcca34ef3ff")


def test_notes_tell_what_a_layout_does() -> None:
    notes = " ".join(make_plan(config_of(256, 32, cluster=one_node(8))).notes)
    assert "8 passes per step stand in for 64 GPUs" in notes
    assert "15 of 118287 images are left over" in notes
    assert "warm-up from 0.02 to 0.32 over 462 steps" in notes


def test_own_parts_are_named_in_the_notes_and_nothing_is_imported_for_them() -> None:
    config = config_of(16, 16)
    config.model.backbone.name, config.model.backbone.custom = "mine", {"_target_": "no_such_package.Net", "width": 64}
    config.model.backbone.weights, config.model.backbone.frozen_stages = "none", 0
    config.optimizer.name, config.optimizer.custom = "mine", {"_target_": "no_such_package.Optimizer"}
    plan = make_plan(config)
    [note] = [note for note in plan.notes if "your own" in note]
    assert "optimizer no_such_package.Optimizer" in note and "model.backbone no_such_package.Net" in note
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "asked",
    [
        {"batch": 98280, "bn_size": 98280}, {"batch": 83160, "bn_size": 41580, "gpus": 41580},
        {"batch": 16, "bn_size": 16, "gpus": 99_991}, {"batch": 99_991, "bn_size": 16},
        {"batch": 16, "bn_size": 16, "gpus": 99_991, "images_per_gpu": 99_991}, {"batch": 16, "bn_size": 100_000},
        {"batch": 2**63 - 1, "bn_size": 16}, {"batch": 16, "bn_size": 2**63 - 1}, {"batch": 16, "bn_size": 0,
        "gpus": 2**63 - 1},
    ],
)  # fmt: skip
def test_huge_numbers_are_answered_at_once(asked: dict[str, Any]) -> None:
    sparse = ClusterSettings(nodes=100_000, gpus_per_node=1, max_images_per_gpu=1)
    for cluster in (one_node(1), one_node(8, max_images_per_gpu=3), sparse):
        began = time.process_time()
        with suppress(UserError):
            layout_of(**asked, cluster=cluster)
        assert time.process_time() - began < 0.5, (asked, cluster)


def test_planning_is_instant_and_loads_the_standard_library_alone() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "from megdet.planning.plan import make_plan; from megdet.config.schema import Config\n"
        "config = Config(); config.cluster.gpus_per_node = 8; make_plan(config)\n"
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= set(sys.stdlib_module_names) | {"megdet"}, loaded
    began = time.perf_counter()
    for batch in range(16, 1616, 16):
        make_plan(config_of(batch, 16))
    assert time.perf_counter() - began < 5


def test_a_noise_scale_that_cannot_be_measured_is_noted() -> None:
    def noted(**asked: Any) -> list[str]:
        return [note for note in make_plan(config_of(16, 4, **asked)).notes if "noise_scale" in note]

    assert noted(gpus=1, images_per_gpu=16) == []  # nobody asked
    [note] = noted(gpus=1, images_per_gpu=16, noise_scale_every=20)
    assert "images_per_gpu" in note
    assert noted(gpus=1, images_per_gpu=4, noise_scale_every=20) == []
    # Ranks that share each BN batch have one gradient together.
    layout = make_plan(config_of(16, 4, gpus=8, images_per_gpu=2)).layout
    assert (layout.bn_group, layout.independent_gradients) == (2, 4)
