"""Layouts that fit into a GPU's memory, by prediction. What is learned, and the run's id, never depend on it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.compose import compose
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.lighter import lighter_ask
from megdet.planning.plan import Plan, make_plan

ONE_NODE = ClusterSettings(nodes=1, gpus_per_node=8)


def plan_of(gpu_memory_gb: float | None, **asked: object) -> Plan:
    return make_plan(Config(cluster=replace(ONE_NODE, gpu_memory_gb=gpu_memory_gb), **asked))  # type: ignore[arg-type]


def asked_by(text: str) -> dict[str, object]:
    """The overrides of `images_per_gpu=4 sublinear=true (...)`."""
    words = [word.partition("=") for word in text.partition(" (")[0].split()]
    return {key: {"true": True, "offload": "offload"}.get(value) or int(value) for key, _, value in words}


@pytest.mark.parametrize("gb", [80.0, 40.0, 24.0, 16.0, 12.0])
@pytest.mark.parametrize("bn_size", [0, 2, 16])
def test_auto_chooses_a_layout_that_fits(gb: float, bn_size: int) -> None:
    plan = plan_of(gb, batch=16, bn_size=bn_size, gpus=4)
    assert plan.memory_gb is not None and plan.memory_gb <= gb
    assert plan.run_id == plan_of(None, batch=16, bn_size=bn_size, gpus=4).run_id


def test_with_more_memory_passes_hold_more_images() -> None:
    images = [plan_of(gb, batch=64, bn_size=2, gpus=1).layout.images_per_gpu for gb in (4.0, 80.0)]
    unlimited = plan_of(None, batch=64, bn_size=2, gpus=1).layout.images_per_gpu
    assert images == [2, unlimited]


def test_sublinear_memory_comes_on_where_nothing_else_fits() -> None:
    assert not plan_of(None, bn_size=16, gpus=1).layout.sublinear
    plan = plan_of(24.0, bn_size=16, gpus=1)
    assert plan.layout.sublinear and plan.memory_gb is not None and plan.memory_gb <= 24
    assert any("cluster.gpu_memory_gb=24" in note for note in plan.notes)


def test_sublinear_false_is_obeyed_and_the_refusal_names_the_ways_out() -> None:
    with pytest.raises(UserError) as refused:
        plan_of(24.0, bn_size=16, gpus=1, sublinear=False)
    said = str(refused.value)
    assert "cluster.gpu_memory_gb=24" in said and "sublinear=true" in said and "cluster.gpu_memory_gb=null" in said


ONE_BN_BATCH = {"batch": 32, "bn_size": 32, "gpus": 1}


def test_32_images_of_one_bn_batch_fit_a_gpu_of_24_gb_with_offloading_and_only_so() -> None:
    with pytest.raises(UserError, match=r"cluster.gpu_memory_gb=24.*\n.*sublinear=offload"):
        plan_of(24.0, **ONE_BN_BATCH)
    plan = plan_of(24.0, **ONE_BN_BATCH, sublinear="offload")
    assert plan.layout.images_per_gpu == 32 and plan.layout.sublinear == "offload"
    assert plan.memory_gb is not None and plan.memory_gb < 0.9 * 24
    assert plan.run_id == plan_of(None, **ONE_BN_BATCH).run_id
    assert any("main memory (sublinear=offload)" in note for note in plan.notes)
    assert Plan.from_json(plan.to_json()) == plan


def test_an_average_and_agvm_take_what_copies_of_the_weights_take() -> None:
    def gb(*asked: str) -> float:
        plan = make_plan(compose(["batch=64", "cluster=paper", *asked]))
        assert plan.memory_gb is not None
        return plan.memory_gb

    weights_gb = 41.76e6 * 4 / 2**30
    plain, averaged, agvm = gb(), gb("optimizer.ema_decay=0.999"), gb("optimizer=agvm")
    assert averaged - plain == pytest.approx(weights_gb, rel=0.05)
    assert 0.9 * weights_gb < agvm - plain < weights_gb, "of what is trained"


def test_images_that_are_asked_for_are_tried_and_a_note_warns() -> None:
    plan = plan_of(12.0, bn_size=16, gpus=1, images_per_gpu=16)
    assert plan.layout.images_per_gpu == 16
    assert any("images_per_gpu=16" in note and "cluster.gpu_memory_gb=12" in note for note in plan.notes)


def test_what_is_known_of_images_counts_beside_the_prediction() -> None:
    cluster = replace(ONE_NODE, gpu_memory_gb=80.0, max_images_per_gpu=1)
    assert make_plan(Config(batch=8, bn_size=0, gpus=2, cluster=cluster)).layout.images_per_gpu == 1


@pytest.mark.parametrize(
    ("bn_size", "gpus", "images_per_gpu", "sublinear"),
    [(16, 1, 16, False), (16, 4, 4, False), (0, 1, 8, False), (16, 4, 4, True), (2, 2, 8, False), (32, 1, 32, True)],
)
def test_after_running_out_of_memory_a_lighter_layout_is_named(
    bn_size: int, gpus: int, images_per_gpu: int, sublinear: bool
) -> None:
    heavy = {"batch": 32, "bn_size": bn_size, "gpus": gpus, "images_per_gpu": images_per_gpu, "sublinear": sublinear}
    plan = plan_of(None, **heavy)
    said = lighter_ask(plan)
    assert said is not None
    lighter = plan_of(None, **{**heavy, **asked_by(said)})
    assert lighter.run_id == plan.run_id
    assert lighter.memory_gb is not None and plan.memory_gb is not None and lighter.memory_gb < 0.81 * plan.memory_gb


def test_where_nothing_is_lighter_nothing_is_named() -> None:
    heavy = {"batch": 8, "bn_size": 0, "images_per_gpu": 1, "gpus": 8}
    assert lighter_ask(plan_of(None, **heavy, sublinear="offload")) is None
    assert "sublinear=offload" in str(lighter_ask(plan_of(None, **heavy, sublinear=True)))


def test_a_small_backbone_with_frozen_bn_takes_all_that_is_padded_together_in_one_pass() -> None:
    plan = make_plan(compose(["experiment=evidence", "bn_size=0", "gpus=1", "cluster.gpus_per_node=1"]))
    assert plan.layout.images_per_gpu == 16 and plan.memory_gb is not None and plan.memory_gb < 1
