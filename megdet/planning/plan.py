"""The plan: every number of a run resolved before anything starts.

`make_plan` is pure, instant and needs the standard library alone, so a laptop can plan (or refuse) 128 GPUs.
A plan is all that a rank needs; it travels as `runs/<run_id>/plan.json` and is never changed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from megdet.config.schema import MOST_IMAGES, Config, settings_from
from megdet.errors import UserError
from megdet.planning.fork import Fork
from megdet.planning.identity import RECIPE, experiment_id_of, name_of, recipe_of, refuse_old_names, run_id_of
from megdet.planning.layout import Layout, LayoutRequest, find_layout
from megdet.planning.memory import MODES, frozen_images, memory_gb, most_images
from megdet.planning.notes import SUBLINEAR_FROM_BN_SIZE, notes_on
from megdet.planning.schedule import Schedule, make_schedule
from megdet.planning.ways_out import refusal
from megdet.settings.rules import shown


@dataclass(frozen=True)
class Plan:
    """One run, with every number resolved."""

    run_id: str
    """The experiment and its seed: name of the run folder."""
    experiment_id: str
    """Everything that decides what is learned except the seed: the key of a table's row."""
    name: str
    config: Config
    layout: Layout
    schedule: Schedule
    recipe: int
    """`megdet.planning.identity.RECIPE` of the code that planned it."""
    commit: str
    """Of that code; `unknown` outside a git checkout."""
    dirty: bool
    """Whether the code differed from that commit."""
    notes: tuple[str, ...]
    """What a reader of the result should know about how it was laid out."""
    fork: Fork | None = None
    """The run that its first epochs are taken from, where that has come so far; None: it trains all by itself."""
    keep_epochs: tuple[int, ...] = ()
    """The epochs at whose ends a checkpoint is kept, for the runs that go on from there."""
    code: str = ""
    """The hash by which the copy of the code is known that its ranks run (`megdet.runs.code`); empty: a release."""

    @property
    def memory_gb(self) -> float | None:
        """What training is predicted to take on each GPU (`megdet.planning.memory`); None where that is not known."""
        return memory_gb(self.config, images=self.layout.images_per_gpu, sublinear=self.layout.sublinear)

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
    def from_json(cls, text: str | bytes) -> Plan:
        """The plan in the text of a plan.json, which must be what `make_plan` says of the config inside.

        Raises UserError, naming what differs, where it is not: it was edited, or written by another version.
        """
        values = _values_in(text)
        plan = make_plan(
            _config_in(values),
            commit=str(values.get("commit")),
            dirty=values.get("dirty") is True,
            fork=_fork_in(values),
            keep_epochs=_epochs_in(values),
            code=str(values["code"]),
        )
        differing = list(_differences(values, json.loads(plan.to_json())))
        if differing:
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise UserError(
                f"plan {shown(values.get('run_id'))} is not what its config gives: {'; '.join(differing[:3])}{more}. "
                "It was edited, or another version of megdet wrote it; launch the changed experiment instead of "
                "editing its plan"
            )
        return plan


def config_in(text: str | bytes) -> Config:
    """What was asked for a plan.json, without holding the rest of the plan to it: for looking into finished runs.

    Raises UserError where the file is damaged, or its config is no longer that of its run id.
    """
    values = _values_in(text)
    config = _config_in(values)
    config.check()
    if values.get("run_id") != run_id_of(config):
        raise UserError(
            f"plan {shown(values.get('run_id'))}: its config now means {run_id_of(config)}, so it was edited, or "
            "another version of megdet wrote it"
        )
    return config


def earlier_plan(text: str) -> Plan:
    """The plan of a run whose plan.json an earlier version may have written: settings that came later have their
    defaults.

    Raises UserError where the file is damaged, or what this version plans is not how the run was laid out.
    """
    values = _values_in(text)
    plan = make_plan(config_in(text), fork=_fork_in(values), keep_epochs=_epochs_in(values))
    now = json.loads(plan.to_json())
    differing = [line for key in ("layout", "schedule") for line in _differences(values.get(key), now[key], key)]
    if differing:
        raise UserError(f"plan {shown(values.get('run_id'))} is laid out in another way by now: {differing[0]}")
    return plan


def make_plan(
    config: Config,
    *,
    commit: str = "unknown",
    dirty: bool = False,
    fork: Fork | None = None,
    keep_epochs: Sequence[int] = (),
    code: str = "",
) -> Plan:
    """The plan of an experiment; `config.cluster.gpus_per_node` must be a number by now.

    Raises UserError where a value makes no sense or no layout gives the batch and BN size asked for.
    """
    config = copy.deepcopy(config)
    config.check()
    cluster = config.cluster
    if isinstance(cluster.gpus_per_node, str):
        raise UserError("cluster.gpus_per_node=auto: a plan needs a number; launchers put in that of their place")
    train_images = config.data.train_images
    if train_images is None or config.data.num_classes is None:
        raise UserError(
            "data.train_images=null, data.num_classes=null: a plan needs numbers; launchers put in those of the files"
        )
    schedule = make_schedule(config.schedule, lr=config.lr, batch=config.batch, train_images=train_images)
    wanted = config.bn_size >= SUBLINEAR_FROM_BN_SIZE if config.sublinear == "auto" else config.sublinear
    request = layout_request(config, sublinear=wanted)
    layout = find_layout(request)
    if layout is None and config.sublinear == "auto" and True in request.max_images_if_sublinear:
        layout = find_layout(layout_request(config, sublinear=True))
    if layout is None:
        raise refusal(request)
    return Plan(
        run_id=run_id_of(config),
        experiment_id=experiment_id_of(config),
        name=name_of(config),
        config=config,
        layout=layout,
        schedule=schedule,
        recipe=RECIPE,
        commit=commit,
        dirty=dirty,
        notes=tuple(notes_on(config, layout, schedule, dirty=dirty)),
        fork=fork,
        keep_epochs=tuple(keep_epochs),
        code=code,
    )


def layout_request(config: Config, *, sublinear: bool | str) -> LayoutRequest:
    """What a config asks of its layout; a number of images that is asked for is not held to predicted memory."""
    cluster = config.cluster
    assert isinstance(cluster.gpus_per_node, int) and config.data.train_images is not None, "as make_plan has seen"
    images_per_gpu = None if isinstance(config.images_per_gpu, str) else config.images_per_gpu
    most, by = cluster.max_images_per_gpu, f"cluster.max_images_per_gpu={cluster.max_images_per_gpu}"
    if_sublinear: dict[bool | str, int] = {}
    by_memory = most_images(config, sublinear=sublinear) if images_per_gpu is None else None
    if by_memory is not None and (most is None or by_memory < most):
        for mode in MODES[MODES.index(sublinear) + 1 :]:
            if more := most_images(config, sublinear=mode):
                if_sublinear[mode] = more if most is None else min(more, most)
        most = by_memory
        by = f"cluster.gpu_memory_gb={cluster.gpu_memory_gb:g} (at most {most} images a GPU, by prediction)"
    return LayoutRequest(
        batch=config.batch,
        bn_size=config.bn_size,
        most_batch=min(config.data.train_images, MOST_IMAGES),
        gpus=None if isinstance(config.gpus, str) else config.gpus,
        images_per_gpu=images_per_gpu,
        nodes=1 if isinstance(cluster.nodes, str) else cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        max_images_per_gpu=most,
        max_images_by=by,
        max_images_if_sublinear=if_sublinear,
        frozen_images_per_gpu=frozen_images(config, sublinear=sublinear),
        bn_across_nodes=cluster.bn_across_nodes,
        sublinear=sublinear,
    )


def _values_in(text: str | bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"plan.json is damaged ({error}); launch the experiment again") from None
    if not isinstance(values, dict):
        raise UserError(f"plan.json is damaged (it holds {shown(values)}); launch the experiment again")
    return {"fork": None, "keep_epochs": [], "code": "", **values}  # as in plans of before there were these


def _fork_in(values: Mapping[str, Any]) -> Fork | None:
    """Raises UserError for what is no fork."""
    fork = values["fork"]
    if fork is None:
        return None
    if not isinstance(fork, dict) or fork.keys() != {"run_id", "epoch"} or not _is_epoch(fork["epoch"]):
        raise UserError(f"plan.json is damaged (fork: {shown(fork)}); launch the experiment again")
    return Fork(str(fork["run_id"]), fork["epoch"])


def _epochs_in(values: Mapping[str, Any]) -> list[int]:
    """Raises UserError for what are no epochs."""
    epochs = values["keep_epochs"]
    if not isinstance(epochs, list) or not all(map(_is_epoch, epochs)):
        raise UserError(f"plan.json is damaged (keep_epochs: {shown(epochs)}); launch the experiment again")
    return epochs


def _is_epoch(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _config_in(values: Mapping[str, Any]) -> Config:
    config = values.get("config")
    if isinstance(config, Mapping):
        refuse_old_names(config)
    if recipe_of(values) != RECIPE:
        raise UserError(
            f"plan {shown(values.get('run_id'))} was made by a megdet that learns by recipe "
            f"{shown(recipe_of(values))}, and this one learns by recipe {RECIPE}: the same settings give other "
            "numbers. Check out the commit that the plan names to work with it, or launch the experiment again"
        )
    return settings_from(Config, config)


def _differences(found: Any, expected: Any, key: str = "") -> Iterator[str]:
    """The differences of two trees of plain values, as `schedule.lr is 0.02 there, and 0.04 by the config`."""
    if isinstance(found, dict) and isinstance(expected, dict):
        prefix = f"{key}." if key else ""
        for name in dict.fromkeys([*found, *expected]):
            if name not in expected:
                yield f"{prefix}{shown(name)} is {shown(found[name])} there, and no part of a plan"
            elif name not in found:
                yield f"{prefix}{name} is missing there, and {shown(expected[name])} by the config"
            else:
                yield from _differences(found[name], expected[name], prefix + name)
    elif found != expected:
        yield f"{key} is {shown(found)} there, and {shown(expected)} by the config"
