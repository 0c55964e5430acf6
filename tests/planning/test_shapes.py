"""All layouts of an experiment: exactly those that the rules allow, all of one run, and what does not fit counted."""

from __future__ import annotations

from itertools import product

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.plan import make_plan
from megdet.planning.shapes import asked_of, shapes_of


def config_of(batch: int, bn_size: int, *, nodes: int = 2, per_node: int = 4, **asked: object) -> Config:
    cluster = {
        key: asked.pop(key) for key in ("max_images_per_gpu", "gpu_memory_gb", "bn_across_nodes") if key in asked
    }
    place = ClusterSettings(nodes=nodes, gpus_per_node=per_node, **cluster)  # type: ignore[arg-type]
    return Config(batch=batch, bn_size=bn_size, cluster=place, **asked)  # type: ignore[arg-type]


def is_legal(
    batch: int, bn_size: int, gpus: int, images: int, accumulation: int, per_node: int, *, across: bool
) -> bool:
    """The rules of the paper's Figure 3 and of our docs, in words of their own: by counting images, not divisors."""
    if gpus * images * accumulation != batch:
        return False
    nodes = [range(first, min(first + per_node, gpus)) for first in range(0, gpus, per_node)]
    if len({len(node) for node in nodes}) > 1:
        return False
    if not bn_size:
        return True
    owners = [position // images for position in range(gpus * images)]
    if len(owners) % bn_size:
        return False
    for first in range(0, len(owners), bn_size):
        group = sorted(set(owners[first : first + bn_size]))
        if len(group) > 1 and any(owners.count(owner) > bn_size for owner in group):
            return False
        if len(group) > 1 and any(owners[first : first + bn_size].count(owner) != images for owner in group):
            return False
        if not across and not any(set(group) <= set(node) for node in nodes):
            return False
    return True


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("batch", "bn_size"), [(8, 0), (8, 4), (16, 16), (24, 8), (24, 2), (12, 3), (30, 15)])
def test_the_layouts_are_all_that_the_rules_allow(batch: int, bn_size: int, across: bool) -> None:
    nodes, per_node = 3, 4
    config = config_of(batch, bn_size, nodes=nodes, per_node=per_node, sublinear=False, bn_across_nodes=across)
    found = {
        (plan.layout.gpus, plan.layout.images_per_gpu, plan.layout.accumulation) for plan in shapes_of(config).plans
    }
    sizes = range(1, batch + 1)
    expected = {
        (gpus, images, accumulation)
        for gpus, images, accumulation in product(range(1, nodes * per_node + 1), sizes, sizes)
        if is_legal(batch, bn_size, gpus, images, accumulation, per_node, across=across)
    }
    assert found == expected


def test_all_layouts_are_of_one_run_and_each_is_what_its_words_ask_for() -> None:
    shapes = shapes_of(config_of(16, 4))
    assert {plan.run_id for plan in shapes.plans} == {shapes.chosen.run_id}
    assert shapes.chosen.layout in [plan.layout for plan in shapes.plans]
    assert len({asked_of(plan) for plan in shapes.plans}) == len(shapes.plans) == len({p.layout for p in shapes.plans})
    for plan in shapes.plans:
        gpus, images, sublinear = (word.partition("=")[2] for word in asked_of(plan).split())
        asked = config_of(16, 4, gpus=int(gpus), images_per_gpu=int(images), sublinear=sublinear == "true")
        assert make_plan(asked).layout == plan.layout


def test_what_is_asked_is_kept_to() -> None:
    plans = shapes_of(config_of(16, 4, gpus=2, sublinear=True)).plans
    assert plans and {(plan.layout.gpus, plan.layout.sublinear) for plan in plans} == {(2, True)}


def test_what_does_not_fit_by_prediction_is_left_out_and_counted() -> None:
    every, fitting = shapes_of(config_of(64, 16)), shapes_of(config_of(64, 16, gpu_memory_gb=12))
    assert every.too_large == 0 and fitting.too_large == len(every.plans) - len(fitting.plans) > 0
    takes = [plan.memory_gb for plan in fitting.plans]
    assert max(gb for gb in takes if gb is not None) <= 12


def test_an_experiment_without_a_layout_is_refused_as_a_launch_would() -> None:
    with pytest.raises(UserError, match="batch is not a whole number of BN batches"):
        shapes_of(config_of(24, 16))
