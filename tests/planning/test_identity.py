"""What makes two runs the same experiment, as ids and as text."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model.settings import BackboneSettings, ModelSettings
from megdet.planning import identity
from megdet.planning.identity import (
    LATER,
    RECIPE,
    experiment_id_of,
    run_id_of,
    semantic_settings,
    semantics_of,
    settings_in,
)
from megdet.planning.plan import Plan, config_in, make_plan


def with_backbone(**custom: object) -> Config:
    backbone = BackboneSettings(name="mine", weights="none", frozen_stages=0, custom={"_target_": "a.B", **custom})
    return Config(model=ModelSettings(backbone=backbone))


def settings_of(config: Config) -> dict[str, str]:
    return settings_in(json.loads(json.dumps(asdict(config))))


def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def test_the_flat_view_has_every_semantic_setting_under_its_key_in_yaml() -> None:
    for config in (Config(), with_backbone(width=64)):
        keys = leaves(semantics_of(asdict(config)))
        assert {key.removesuffix(".name") for key in keys} == set(settings_of(config))
    settings = settings_of(with_backbone(width=64, names=["b", "a"]))
    assert settings["model"] == "r50_fpn" and settings["model.backbone"] == "mine" and settings["optimizer"] == "sgd"
    assert settings["model.rpn.nms"] == "0.7" and settings["schedule.milestones"] == "[8, 10]"
    assert settings["model.bn_in"] == '["backbone", "fpn"]'
    assert settings["model.backbone.custom._target_"] == "a.B" and settings["model.backbone.custom.width"] == "64"
    assert settings["model.backbone.custom.names"] == '["b", "a"]'
    assert "model.norm.custom" not in settings and "data.root" not in settings and "seed" not in settings


def test_an_own_parts_path_and_arguments_are_part_of_the_identity() -> None:
    variants = [Config(), with_backbone(), with_backbone(width=64), with_backbone(width=32), with_backbone(width=None),
                with_backbone(names=["a", "b"]), with_backbone(names=["b", "a"])]  # fmt: skip
    other = with_backbone()
    other.model.backbone.custom = {"_target_": "a.C"}
    variants.append(other)
    for identity_of in (experiment_id_of, run_id_of, lambda config: json.dumps(settings_of(config))):
        assert len({identity_of(config) for config in variants}) == len(variants)
    assert run_id_of(with_backbone(width=64)) == run_id_of(with_backbone(width=64.0))


def test_a_part_that_is_not_ones_own_leaves_the_ids_alone() -> None:
    plain = asdict(Config())
    del plain["model"]["backbone"]["custom"], plain["optimizer"]["custom"]
    assert semantics_of(plain) == semantics_of(asdict(Config()))


def test_a_setting_that_came_later_leaves_the_ids_alone_until_it_changes_something() -> None:
    config = Config()
    before = asdict(config)
    for key, value in LATER.items():
        *parts, name = key.split(".")
        place = before
        for part in parts:
            place = place[part]
        assert place.pop(name) == value, f"{key} is no longer what changes nothing"
    assert semantics_of(before) == semantics_of(asdict(config))
    other = Config()
    other.model.roi_heads.sampler = "ohem"
    assert experiment_id_of(other) != experiment_id_of(config)
    assert settings_of(other)["model.roi_heads.sampler"] == "ohem"


def test_the_ids_of_the_papers_experiment_are_those_of_before() -> None:
    assert (run_id_of(Config()), experiment_id_of(Config())) == ("b16-bn16-normal-s0-76b3de96", "bfcca34ef3ff")


def test_the_order_of_places_for_bn_means_nothing_and_the_seed_is_no_part_of_the_experiment() -> None:
    other = Config(seed=1, model=ModelSettings(bn_in=["fpn", "backbone", "fpn"]))
    assert experiment_id_of(other) == experiment_id_of(Config()) and settings_of(other) == settings_of(Config())
    assert run_id_of(other) != run_id_of(Config()) == run_id_of(replace(other, seed=0))


def test_a_plan_from_before_settings_were_nested_is_refused_in_words() -> None:
    old = {"config": {"batch": 16, "model": {"name": "r50_fpn", "backbone": "resnet50", "rpn_nms": 0.7}}}
    with pytest.raises(
        UserError, match=r"before settings were nested.*check out the commit.*launch the experiment again"
    ):
        semantic_settings(old)


def test_a_plan_without_some_settings_can_be_read() -> None:
    assert semantic_settings({"config": {"batch": 16, "model": {"name": "tiny"}, "gpus": 2}}) == {
        "recipe": "1",
        "batch": "16",
        "model": "tiny",
    }


def test_another_recipe_is_another_experiment_under_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [identity_of(Config()) for identity_of in (experiment_id_of, run_id_of)]
    monkeypatch.setattr(identity, "RECIPE", RECIPE + 1)
    assert all(new != old for new, old in zip((experiment_id_of(Config()), run_id_of(Config())), before, strict=True))


@pytest.mark.parametrize("recipe", [None, RECIPE - 1, RECIPE + 1])
def test_a_plan_of_another_recipe_is_refused_in_words_and_told_apart_in_tables(recipe: int | None) -> None:
    config = Config()
    config.cluster.gpus_per_node = 8
    plan = json.loads(make_plan(config).to_json())
    assert semantic_settings(plan)["recipe"] == str(RECIPE)
    if recipe is None:
        del plan["recipe"]  # as of before there was one
    else:
        plan["recipe"] = recipe
    assert semantic_settings(plan)["recipe"] == str(recipe or 1)
    for read in (Plan.from_json, config_in):
        with pytest.raises(UserError, match=rf"learns by recipe {recipe or 1}, and this one learns by recipe {RECIPE}"):
            read(json.dumps(plan))
