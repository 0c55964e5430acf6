"""From what is asked to what is done: every number resolved before anything starts.

`make_plan` is pure, instant and needs the standard library alone, so a laptop can plan (or refuse) 128 GPUs.
A plan is all that a rank needs; it travels as `runs/<run_id>/plan.json` and is never changed.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from megdet.config.check import check_config
from megdet.config.schema import Config, dataclass_from
from megdet.errors import UserError
from megdet.planning.layout import Layout, LayoutRequest, make_layout
from megdet.planning.schedule import Schedule, make_schedule
from megdet.planning.settings import PLACES

SUBLINEAR_FROM_BN_SIZE = 32
"""Table 3: "When the BN size >= 32, the sublinear memory is applied"."""


@dataclass(frozen=True)
class Plan:
    """One run with every number resolved."""

    run_id: str
    """The experiment and its seed: name of the run folder."""
    experiment_id: str
    """Everything that decides what is learned except the seed: the key of a table's row."""
    name: str
    config: Config
    layout: Layout
    schedule: Schedule
    commit: str
    """Of the code that planned it; `unknown` outside a git checkout."""
    dirty: bool
    """Whether the code differed from that commit."""
    notes: tuple[str, ...]
    """What a reader of the result should know about how it was laid out."""

    def check_ranks(self, world_size: int) -> None:
        """Raises UserError where the ranks that were started are not those of the plan."""
        if world_size != self.layout.gpus:
            raise UserError(
                f"{self.run_id} is planned for {self.layout.gpus} ranks, and WORLD_SIZE={world_size}; "
                f"start {self.layout.gpus}, or launch the experiment again with gpus={world_size}"
            )

    def to_json(self) -> str:
        """The text of plan.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in the text of a plan.json. Raises UserError where it does not hold together."""
        values = json.loads(text)
        plan = dataclass_from(cls, values)
        schedule = values["schedule"]
        milestones = tuple((int(step), float(factor)) for step, factor in schedule["milestones"])
        object.__setattr__(plan, "schedule", Schedule(**{**schedule, "milestones": milestones}))
        object.__setattr__(plan, "notes", tuple(values["notes"]))
        if plan.run_id != run_id_of(plan.config):
            raise UserError(
                f"plan {plan.run_id}: its config now means {run_id_of(plan.config)}, so it was edited or written by "
                "another version of megdet; launch the changed experiment instead of editing its plan"
            )
        return plan


def make_plan(config: Config, *, commit: str = "unknown", dirty: bool = False) -> Plan:
    """The plan of an experiment; `config.cluster.gpus_per_node` must be a number by now.

    Raises UserError where a value makes no sense or no layout gives the batch and BN size asked for.
    """
    config = copy.deepcopy(config)
    check_config(config)
    cluster = config.cluster
    assert isinstance(cluster.gpus_per_node, int), "resolved by the launcher"
    sublinear = config.bn_size >= SUBLINEAR_FROM_BN_SIZE if config.sublinear == "auto" else config.sublinear
    layout = make_layout(
        LayoutRequest(
            batch=config.batch,
            bn_size=config.bn_size,
            gpus=None if isinstance(config.gpus, str) else config.gpus,
            images_per_gpu=None if isinstance(config.images_per_gpu, str) else config.images_per_gpu,
            nodes=cluster.nodes,
            gpus_per_node=cluster.gpus_per_node,
            max_images_per_gpu=cluster.max_images_per_gpu,
            bn_across_nodes=cluster.bn_across_nodes,
            sublinear=bool(sublinear),
        )
    )
    train_images = config.data.train_images
    assert train_images is not None, "resolved from the files, and checked"
    schedule = make_schedule(config.schedule, lr=config.lr, batch=config.batch, train_images=train_images)
    return Plan(
        run_id=run_id_of(config),
        experiment_id=experiment_id_of(config),
        name=_name_of(config),
        config=config,
        layout=layout,
        schedule=schedule,
        commit=commit,
        dirty=dirty,
        notes=tuple(_notes(config, layout, schedule, dirty=dirty)),
    )


def semantics_of(config: Config) -> dict[str, Any]:
    """What decides what is learned, as plain values: no layout, paths, tracking or seed.

    Values that are None are left out, so that a later optional setting does not change old ids.
    """
    values = asdict(config)
    kept = ("batch", "bn_size", "precision", "lr", "optimizer", "schedule", "model", "data", "eval")
    semantics = {key: values[key] for key in kept}
    for place in PLACES:
        del semantics[place.partition(".")[0]][place.partition(".")[2]]
    semantics["model"]["bn_in"] = sorted(set(semantics["model"]["bn_in"]))
    return {key: _canonical(value) for key, value in semantics.items()}


def experiment_id_of(config: Config) -> str:
    """12 hex digits over the semantics."""
    return _digest(semantics_of(config))[:12]


def run_id_of(config: Config) -> str:
    """The name and 8 hex digits over the semantics and the seed."""
    return f"{_name_of(config)}-{_digest({**semantics_of(config), 'seed': config.seed})[:8]}"


def _name_of(config: Config) -> str:
    scale = "" if config.lr.scale == 1 else f"-lr{config.lr.scale:g}x"
    return f"b{config.batch}-bn{config.bn_size}-{config.schedule.name}{scale}-s{config.seed}"


def _canonical(value: Any) -> Any:
    """Equal for equal meanings: 1 and 1.0 are one number, an absent None is no setting."""
    if isinstance(value, Mapping):
        return {key: _canonical(v) for key, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _digest(semantics: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(semantics), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _notes(config: Config, layout: Layout, schedule: Schedule, *, dirty: bool) -> list[str]:
    notes = []
    if layout.sublinear:
        asked = "as asked" if config.sublinear is True else f"bn_size >= {SUBLINEAR_FROM_BN_SIZE}, as in the paper"
        notes.append(f"sublinear memory is on ({asked}): less memory, slower; the result is the same")
    if layout.accumulation > 1:
        notes.append(
            f"{layout.accumulation} passes per step stand in for {layout.gpus * layout.accumulation} GPUs: "
            "same images behind every statistic, more time"
        )
    if layout.bn_group > layout.gpus_per_node:
        notes.append(f"BN groups of {layout.bn_group} GPUs span nodes: each BN layer talks over the network")
    if schedule.warmup_steps:
        notes.append(f"warm-up from {schedule.warmup_lr:g} to {schedule.lr:g} over {schedule.warmup_steps} steps")
    train_images = config.data.train_images or 0
    left_over = train_images - schedule.steps_per_epoch * config.batch
    if left_over:
        notes.append(f"{left_over} of {train_images} images are left over in every epoch")
    if dirty:
        notes.append("the code differs from the commit that is recorded")
    return notes
