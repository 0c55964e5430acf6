"""conf/ and the schema: everything composes and plans, and mistakes are explained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from megdet.config.compose import compose as compose_config
from megdet.config.compose import to_config
from megdet.config.experiments import compose_one, compose_points, compose_sweep
from megdet.config.explain import explain
from megdet.config.register import register
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.local.machine import Machine
from megdet.planning.identity import settings_in
from megdet.planning.plan import make_plan

CONF = Path(__file__).parents[2] / "conf"


def options_of(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register()
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


def test_what_a_row_asks_for_is_composed_without_a_command_line_and_hydra_is_as_it_was() -> None:
    before = GlobalHydra.instance().hydra
    overrides = ["experiment=tiny", "batch=32", "optimizer.clip_grad_norm=null"]
    assert compose_config(overrides) == config_of(*overrides)
    with pytest.raises(UserError, match="Did you mean"):
        compose_config(["bath=16"])
    assert GlobalHydra.instance().hydra is before


def test_the_defaults_of_conf_are_those_of_the_schema_the_papers_experiment() -> None:
    assert config_of() == Config()


@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_every_experiment_composes_and_plans(experiment: str) -> None:
    plan = make_plan(Machine.here().resolve(config_of(f"experiment={experiment}")))
    assert plan.schedule.steps > 0


@pytest.mark.parametrize(
    "override",
    [
        f"{group}={option}"
        for group in ("model", "data", "schedule", "cluster", "optimizer")
        for option in options_of(group)
    ],
)
def test_every_option_composes_and_plans(override: str) -> None:
    config = config_of(override)
    config.batch = 32  # optimizer=agvm compares two halves of whole BN batches
    group, _, option = override.partition("=")
    assert getattr(config, group).name == option
    config.data.train_images = config.data.train_images or 1000  # own data's are read from its files
    config.data.val_images, config.data.num_classes = config.data.val_images or 100, config.data.num_classes or 3
    make_plan(Machine.here().resolve(config))


@pytest.mark.parametrize(
    "override",
    [f"model/{part}={option}" for part in ("backbone", "norm", "roi_pool") for option in options_of(f"model/{part}")],
)
def test_every_part_of_the_model_composes_and_plans(override: str) -> None:
    from_scratch = ["model.backbone.weights=none", "model.backbone.frozen_stages=0"]  # ImageNet's are with batch norm
    config = config_of(override, *(from_scratch if override == "model/norm=gn" else []))
    part, _, option = override.removeprefix("model/").partition("=")
    assert getattr(config.model, part).name == option
    make_plan(Machine.here().resolve(config))


def test_a_model_names_the_parts_it_is_made_of() -> None:
    parts = {name: config_of(f"model={name}").model.backbone.name for name in options_of("model")}
    assert parts == {
        "r50_fpn": "resnet50",
        "r18_fpn": "resnet18",
        "lite0_fpn": "efficientnet_lite0",
        "tiny": "tiny",
    }


def test_an_own_part_is_a_file_of_ones_own_in_the_groups_folder(tmp_path: Path) -> None:
    """What `--config-dir` adds, chosen, swept and changed like any other."""
    for group, text in {
        "model/backbone/mine": "{name: mine, weights: none, frozen_stages: 0, custom: {_target_: a.Net, width: 64}}",
        "optimizer/adamw": "{name: adamw, custom: {_target_: torch.optim.AdamW, weight_decay: 0.05}}",
        "schedule/cosine": "{name: cosine, epochs: 12, milestones: [], factors: [], custom: {_target_: a.Cosine}}",
        "experiment/mine": (
            "# @package _global_\ndefaults: [override /model/backbone: mine, override /schedule: cosine]"
        ),
    }.items():
        file = tmp_path / f"{group}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    search = f"hydra.searchpath=[{tmp_path}]"
    config = config_of("model/backbone=mine", "optimizer=adamw", "model.backbone.custom.width=32", search)
    assert config.model.backbone.custom == {"_target_": "a.Net", "width": 32}
    assert config.optimizer.custom == {"_target_": "torch.optim.AdamW", "weight_decay": 0.05}
    make_plan(Machine.here().resolve(config))
    config = config_of("experiment=mine", search)
    assert (config.model.backbone.name, config.schedule.custom) == ("mine", {"_target_": "a.Cosine"})
    points = [p for _, p in points_of("model/backbone=mine,resnet18", "optimizer=adamw,sgd", search)]
    assert [(p.model.backbone.name, p.optimizer.name) for p in points] == [
        ("mine", "adamw"), ("mine", "sgd"), ("resnet18", "adamw"), ("resnet18", "sgd"),
    ]  # fmt: skip


def test_experiment_tiny_is_batch_16_on_two_processes_with_the_tiny_detector_on_shapes() -> None:
    config = config_of("experiment=tiny")
    assert (config.batch, config.bn_size, config.gpus) == (16, 16, 2)
    assert (config.model.name, config.data.name, config.tracking.experiment) == ("tiny", "shapes", "tiny")
    assert (config.model.backbone.weights, config.model.backbone.frozen_stages) == ("none", 0)
    assert config_of("experiment=tiny", "batch=32", "data=coco2017").data.name == "coco2017"


def test_the_schedules_are_the_papers() -> None:
    normal, long = config_of().schedule, config_of("schedule=long").schedule
    assert config_of("experiment=demo", "schedule=long").schedule == long, "an experiment changes no schedule's meaning"
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
        ("batch=many", ["batch=many", "a whole number"]),
        ("lr.scale=half", ["lr.scale=half", "a number above 0"]),
        ("gpus=2.5", ["gpus=2.5"]),
        ("batch=[", ["batch=["]),
        ("+bath=16", ["+bath", "batch"]),
        ("+lr.bas=16", ["+lr.bas", "lr.base"]),
        ("batch=???", ["batch"]),
        ("schedule.epochs=???", ["schedule.epochs"]),
        ("model.rpn_nms=0.5", ["model.rpn_nms", "model.rpn.nms"]),
        ("model.weights=none", ["model.weights", "Did you mean model.backbone.weights?"]),
        ("model.backbone=tiny", ["model.backbone=tiny", "model/backbone=NAME", "model.backbone.name"]),
        ("lr=0.1", ["lr=0.1", "lr has settings of its own", "lr.base"]),
        ("model/backbone=resnet81", ["model/backbone=resnet81", "resnet18", "resnet18, resnet50, resnext50_32x4d, "]),
        ("model.backbone.custom.width=8", ["model.backbone.custom.width", "+model.backbone.custom.width"]),
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
    assert [p.schedule.name for _, p in points_of("schedule=glob(*)")] == ["long", "normal", "short"]
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
        ("model/backbone=resnet18,resnet50", "model.backbone.frozen_stages=1,3"),
        ("experiment=tiny", "model/backbone=tiny,resnet50", "batch=8,16"),
        ("experiment=tiny", "+model.backbone.custom.width=8,16", "batch=8,16"),
        ("schedule.epochs=20,30", "schedule=normal,long"),
        (
            "experiment=tiny",
            "batch=8,16",
            "model=tiny,r18_fpn",
            "model.backbone.weights=none",
            "model.backbone.frozen_stages=0",
        ),
        ("++lr.scale=0.5,1", "schedule=long"),
        ("schedule.milestones.0=7,6", "batch=16,32"),
        ("+cluster.sbatch_options.exclude=a,b", "batch=16,32"),
        ("lr={scale: 0.5},{base: 0.1}", "lr.base_batch=8,32"),
        ("gpus=2,auto", "schedule.warmup_epochs=null,2", "optimizer.clip_grad_norm=1,null"),
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


def asks_of(table: str) -> list[dict[str, object]]:
    """What the rows of a file in sweeps/ ask for, read without our reader."""
    content = yaml.safe_load((CONF.parent / "sweeps" / f"{table}.yaml").read_text())
    return [{"lr.scale": 1, **row["ask"]} for row in content["rows"]]


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "figure1", "figure4"])
@pytest.mark.parametrize("spelling", ["sweep", "sweep.rows"])
def test_a_table_is_a_sweep_over_its_rows_in_their_order(table: str, spelling: str) -> None:
    points = [config for _, config in points_of(f"{spelling}={table}", "cluster=paper")]
    asks = asks_of(table)
    assert [(p.batch, p.bn_size, p.schedule.name, p.lr.scale) for p in points] == [
        (ask["batch"], ask["bn_size"], ask["schedule"], ask["lr.scale"]) for ask in asks
    ]
    assert [p.gpus for p in points] == [ask.get("gpus", "auto") for ask in asks]
    assert [p.schedule.epochs for p in points] == [18 if ask["schedule"] == "long" else 11 for ask in asks]


def test_the_ablation_is_the_baseline_then_each_module_alone_then_all_of_them() -> None:
    points = [config for _, config in points_of("sweep=ablation", "cluster=paper", "gpus=8")]
    plans = [make_plan(config) for config in points]
    assert plans[0].run_id == make_plan(config_of("cluster=paper", "gpus=8")).run_id, "the paper's detector"
    baseline, *modules, together = [settings_in(asdict(config)) for config in points]
    changes = [{key: value for key, value in module.items() if baseline.get(key) != value} for module in modules]
    assert all(changes) and len({plan.run_id for plan in plans}) == len(points)
    alone = {key: value for change in changes for key, value in change.items() if key != "model.bn_in"}
    assert {key: together[key] for key in alone} == alone


def test_beyond_has_the_papers_256_and_every_optimizer_at_every_larger_batch() -> None:
    plans = [make_plan(config) for _, config in points_of("sweep=beyond", "cluster=paper")]
    found = [(p.config.batch, p.config.optimizer.name, p.config.optimizer.ema_decay) for p in plans]
    every = [("sgd", None), ("lars", None), ("lamb", None), ("muon", None), ("agvm", None), ("agvm", 0.99)]
    assert found == [(256, "sgd", None), *((batch, *row) for batch in (512, 1024, 1536) for row in every)]
    assert {p.layout.gpus for p in plans[1:]} == {128} and len({p.run_id for p in plans}) == len(plans)
    assert plans[0].run_id == make_plan(config_of("batch=256", "bn_size=32", "cluster=paper")).run_id
    assert all(plan.schedule.warmup_steps == plan.schedule.steps_per_epoch for plan in plans), "a warm-up of one epoch"


PAPERS_GPUS = {
    (16, 0): 8, (2, 2): 2, (4, 4): 4, (8, 8): 8, (16, 2): 8, (16, 16): 8, (32, 32): 8, (64, 64): 8, (64, 32): 16,
    (64, 16): 32, (128, 32): 32, (128, 16): 64, (256, 32): 64, (256, 16): 128,
}  # fmt: skip
"""By batch and BN size, as Table 3 prints them."""


def test_the_rows_of_table_3_are_planned_with_the_papers_gpus() -> None:
    plans = [make_plan(config) for _, config in points_of("sweep=table3", "cluster=paper")]
    assert {(plan.config.batch, plan.config.bn_size): plan.layout.gpus for plan in plans} == PAPERS_GPUS


def test_rows_combine_with_a_grid_and_seeds_the_whole_table_for_each() -> None:
    rows = len(asks_of("table3"))
    points = [config for _, config in points_of("sweep=table3", "seed=0,1", "precision=bf16")]
    assert [p.seed for p in points] == [0] * rows + [1] * rows
    assert {p.precision for p in points} == {"bf16"}
    assert points[0].batch == points[rows].batch == 16


def test_the_command_line_has_the_last_word_over_a_row() -> None:
    points = points_of("sweep=table3", "experiment=tiny", "gpus=2", "lr={scale: 0.25}")
    assert {p.gpus for _, p in points} == {2} and {p.lr.scale for _, p in points} == {0.25}
    assert {p.model.name for _, p in points} == {"tiny"}
    assert len({(p.batch, p.bn_size, p.schedule.name) for _, p in points}) == 20
    assert points[-1][0] == ("batch=256", "bn_size=16", "schedule=long")
    assert {p.schedule.epochs for _, p in points_of("sweep=table3", "schedule.epochs=20,30")} == {20, 30}


@pytest.mark.parametrize("name", ["sweep=tabel3", "sweep.rows=tabel3"])
def test_a_mistyped_table_is_one_message_with_the_near_one(name: str) -> None:
    with pytest.raises((UserError, HydraException)) as caught:
        points_of(name)
    message = explain(caught.value) if isinstance(caught.value, HydraException) else str(caught.value)
    assert name in message and "table3" in message and "\n" not in message


def test_a_table_of_published_results_has_nothing_to_run_and_is_not_proposed() -> None:
    with pytest.raises(UserError, match=r"sweep\.rows=table4: nothing is to be run for it"):
        points_of("sweep.rows=table4")
    with pytest.raises(UserError, match=r"Use one of ablation, beyond, figure1, figure4, table1, table2, table3, or"):
        points_of("sweep.rows=tabel4")


def test_a_table_without_m_is_refused_with_the_command_that_runs_it() -> None:
    with pytest.raises(UserError, match=r"launch\.py -m sweep\.rows=table3"):
        compose_one(compose("config", ["sweep=table3"]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rows: [{ask: {batch: 16}}, {ask: {bath: 16}}]", ["mine.yaml, row 2", "bath", "batch"]),
        ("rows: [{ask: {schedule: lnog}}]", ["mine.yaml, row 1", "schedule=lnog", "long"]),
        ("rows: [{ask: {batch: many}}]", ["mine.yaml, row 1", "batch=many"]),
        ("rows: [{label: 16}]", ["mine.yaml", "nothing is to be run", "ask"]),
        ("rows: [{label: 16}, {ask: {batch: 16}}]", ["mine.yaml, row 1", "ask"]),
        ("rows: []", ["mine.yaml", "rows"]),
        ("rows: [", ["mine.yaml"]),
    ],
)
def test_a_mistake_in_a_file_of_rows_names_the_row(text: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        points_of(f"sweep.rows={tmp_path / 'mine.yaml'}")
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_row_may_choose_parts_and_the_command_line_has_the_last_word_over_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rows: [{ask: {model/backbone: resnet18, batch: 32}}]")
    rows = f"sweep.rows={tmp_path / 'mine.yaml'}"
    [(overrides, config)] = points_of(rows)
    assert (config.model.backbone.name, overrides) == ("resnet18", ("model/backbone=resnet18", "batch=32"))
    for said in ("model=tiny", "model/backbone=tiny", "model.backbone={name: tiny, weights: none, frozen_stages: 0}"):
        [(overrides, config)] = points_of(rows, said)
        assert (config.model.backbone.name, config.batch, overrides) == ("tiny", 32, ("batch=32",))


def test_a_file_of_ones_own_may_ask_for_anything(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rows: [{ask: {model: tiny, schedule.milestones: [3, 5], sublinear: true}}]")
    [(overrides, config)] = points_of(f"sweep.rows={tmp_path / 'mine.yaml'}")
    assert config.model.name == "tiny" and config.schedule.milestones == [3, 5] and config.sublinear is True
    assert overrides == ("model=tiny", "schedule.milestones=[3, 5]", "sublinear=true")


def test_a_value_that_refers_to_another_follows_it_through_a_sweep() -> None:
    assert [p.bn_size for _, p in points_of("batch=16,32", "bn_size=${batch}")] == [16, 32]
    assert [p.lr.scale for _, p in points_of("batch=16,32", "lr={scale: 0.5}")] == [0.5, 0.5]


def test_a_sweep_without_a_command_line_is_each_of_its_experiments() -> None:
    asked, launcher = compose_sweep(["batch=16,64", "bn_size=4", "model=tiny", "hydra/launcher=local_parallel"])
    assert launcher == "local_parallel"
    assert [one.overrides for one in asked] == [("batch=16",), ("batch=64",)]
    assert [one.config for one in asked] == [
        compose_config([f"batch={batch}", "bn_size=4", "model=tiny"]) for batch in (16, 64)
    ]
    rows, _ = compose_sweep(["sweep=table2"])
    assert [(one.config.batch, one.config.lr.scale) for one in rows[:4]] == [(16, 1), (32, 1), (64, 1), (64, 0.5)]
    [alone], _ = compose_sweep([])
    assert alone.config == compose_config([])


def own_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file of the user's own has to be for a launch from `tmp_path`, which this process goes to."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / f"{name}.yaml"
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize("value", ["12:00:00", "1:30", "-1:30  # an hour and a half"])
def test_a_time_in_a_file_of_ones_own_is_refused_where_yaml_makes_another_number_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    file = own_file("cluster/mine", tmp_path, monkeypatch)
    file.write_text(f"name: mine\ntime_min: {value}\n")
    said = rf"mine\.yaml, line 2: time_min: {value.split()[0]} is a number of base 60 to YAML"
    with pytest.raises(UserError, match=said):
        compose_config(["cluster=mine"])
    with pytest.raises(UserError, match=said):
        compose_sweep(["cluster=mine", "batch=16,32"])
    assert compose_config([]).cluster.time_min is None, "it was not chosen"
    file.write_text("name: mine\nsbatch_options: {begin: '12:00:00'}\nsetup: ['export T=12:00:00']\n")
    assert compose_config(["cluster=mine"]).cluster.setup == ["export T=12:00:00"]


def test_a_file_that_is_no_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = own_file("cluster/mine", tmp_path, monkeypatch)
    file.write_bytes(b"name: m\xfcnchen\n")
    with pytest.raises(UserError, match=r"conf/cluster/mine\.yaml: not UTF-8 .*save it as UTF-8"):
        compose_config(["cluster=mine"])


@pytest.mark.parametrize("content", ["batch: 8\n", "defaults: [override /data: shapes]\nbatch: 8\n"])
def test_an_experiment_of_ones_own_without_its_first_line_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    file = own_file("experiment/mine", tmp_path, monkeypatch)
    file.write_text(content)
    with pytest.raises(UserError, match=r"^experiment/mine\.yaml: its first line has to be `# @package _global_`"):
        compose_config(["experiment=mine"])
    file.write_text(f"# @package _global_\n{content}")
    assert compose_config(["experiment=mine"]).batch == 8
