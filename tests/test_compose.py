"""conf/ and the schema: everything composes and plans, and mistakes are explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from megdet.compose import compose_points, explain, register_schema, to_config
from megdet.config import Config
from megdet.errors import UserError
from megdet.launchers.local import resolve_cluster
from megdet.plan import make_plan

CONF = Path(__file__).parents[1] / "conf"


def options_of(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def config_of(*overrides: str) -> Config:
    return to_config(compose("config", list(overrides)))


def points_of(*arguments: str) -> list[tuple[tuple[str, ...], Config]]:
    hydra = GlobalHydra.instance().hydra
    assert isinstance(hydra, Hydra)
    master = compose("config", return_hydra_config=True)
    return [(asked.overrides, asked.config) for asked in compose_points(hydra.config_loader, master, list(arguments))]


def message_of(*overrides: str) -> str:
    try:
        config_of(*overrides)
    except HydraException as error:
        return explain(error)
    except UserError as error:
        return str(error)
    raise AssertionError("no error")


def test_the_defaults_of_conf_are_those_of_the_schema_the_papers_experiment() -> None:
    assert config_of() == Config()


@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_every_experiment_composes_and_plans(experiment: str) -> None:
    plan = make_plan(resolve_cluster(config_of(f"experiment={experiment}")))
    assert plan.schedule.steps > 0


@pytest.mark.parametrize(
    "override",
    [f"{group}={option}" for group in ("model", "data", "schedule", "cluster") for option in options_of(group)],
)
def test_every_option_composes_and_plans(override: str) -> None:
    config = config_of(override)
    group, _, option = override.partition("=")
    assert getattr(config, group).name == option
    make_plan(resolve_cluster(config))


def test_the_demo_is_batch_16_on_two_processes_with_the_tiny_detector_on_shapes() -> None:
    config = config_of("experiment=demo")
    assert (config.batch, config.bn_size, config.gpus) == (16, 16, 2)
    assert (config.model.name, config.data.name, config.tracking.experiment) == ("tiny", "shapes", "demo")
    assert (config.model.weights, config.model.frozen_stages) == ("none", 0)
    assert config_of("experiment=demo", "batch=32", "data=coco2017").data.name == "coco2017"


def test_the_schedules_are_the_papers() -> None:
    normal, long = config_of().schedule, config_of("schedule=long").schedule
    assert (normal.epochs, normal.milestones, normal.factors) == (11, [8, 10], [0.1, 0.1])
    assert (long.epochs, long.milestones, long.factors) == (18, [11, 14, 17], [0.1, 0.1, 0.5])


def test_numbers_and_auto_and_null_keep_their_types() -> None:
    config = config_of("gpus=8", "sublinear=true", "schedule.warmup_epochs=null", "schedule.warmup_images=500")
    assert config.gpus == 8 and config.sublinear is True
    assert config.schedule.warmup_epochs is None and config.schedule.warmup_images == 500
    assert config_of("gpus=auto").gpus == "auto"
    assert isinstance(config.schedule.milestones, list) and isinstance(config.lr.scale, float)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("bath=16", ["bath", "batch"]),
        ("lr.bas=1", ["lr.bas", "lr.base"]),
        ("lr.momentun=0.9", ["lr.momentun", "optimizer.momentum"]),
        ("modle=r50_fpn", ["modle", "model"]),
        ("model=r51_fpn", ["model=r51_fpn", "r50_fpn", "r18_fpn, r50_fpn, tiny"]),
        ("experiment=demmo", ["experiment=demmo", "demo"]),
        ("batch=many", ["batch=many", "Integer"]),
        ("lr.scale=half", ["lr.scale=half", "Float"]),
        ("gpus=2.5", ["gpus=2.5"]),
        ("batch=[", ["batch=["]),
        ("+bath=16", ["+bath", "batch"]),
        ("+lr.bas=16", ["+lr.bas", "lr.base"]),
        ("batch=???", ["batch"]),
        ("schedule.epochs=???", ["schedule.epochs"]),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(override: str, parts: list[str]) -> None:
    message = message_of(override)
    assert all(part in message for part in parts), message
    assert len(message) < 250 and "\n" not in message


def test_a_sweep_is_every_combination_in_the_order_written() -> None:
    points = points_of("batch=16,64", "bn_size=16,32", "seed=3")
    assert [p.batch for _, p in points] == [16, 16, 64, 64]
    assert [p.bn_size for _, p in points] == [16, 32, 16, 32]
    assert {p.seed for _, p in points} == {3}
    assert points[1][0] == ("batch=16", "bn_size=32")


def test_ranges_choices_globs_and_groups_sweep() -> None:
    assert [p.batch for _, p in points_of("batch=range(16,65,16)")] == [16, 32, 48, 64]
    assert [p.lr.scale for _, p in points_of("lr.scale=choice(0.5,1)")] == [0.5, 1.0]
    assert [p.schedule.name for _, p in points_of("schedule=glob(*)")] == ["long", "normal"]
    assert [p.model.bn_in for _, p in points_of("model.bn_in=[backbone],[backbone,fpn]")] == [
        ["backbone"],
        ["backbone", "fpn"],
    ]


def test_without_a_sweep_there_is_one_point() -> None:
    assert [(overrides, p.batch) for overrides, p in points_of("batch=32")] == [((), 32)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("schedule=normal,long", "schedule.epochs=20,30"),
        ("schedule.epochs=20,30", "schedule=normal,long"),
        ("experiment=demo", "batch=8,16", "model=tiny,r18_fpn", "model.weights=none", "model.frozen_stages=0"),
        ("++lr.scale=0.5,1", "schedule=long"),
    ],
)
def test_a_point_of_a_sweep_is_what_hydra_composes_for_it_alone(arguments: tuple[str, ...]) -> None:
    fixed = [argument for argument in arguments if "," not in argument]
    points = points_of(*arguments)
    assert len(points) > 1
    for overrides, config in points:
        assert config == config_of(*fixed, *overrides)


def test_plain_values_are_set_without_composing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    compose_one = ConfigLoaderImpl.load_sweep_config

    def counting(self: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        composed.append(sweep_overrides)
        return compose_one(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counting)
    assert len(points_of("batch=range(16,161,16)", "schedule=normal,long", "bn_size=8")) == 20
    assert composed == [["bn_size=8", "schedule=normal"], ["bn_size=8", "schedule=long"]]


def test_a_continuous_sweep_is_refused() -> None:
    with pytest.raises(UserError, match=r"lr\.scale=interval"):
        points_of("lr.scale=interval(0.5,1)")


def test_a_mistake_in_a_swept_value_is_explained() -> None:
    with pytest.raises(UserError, match="batch=many"):
        points_of("batch=16,many")
    with pytest.raises(UserError, match=r"bath.*batch"):
        points_of("bath=16,32")
