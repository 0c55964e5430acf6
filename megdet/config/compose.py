"""Between Hydra and the schema: composed configs become `Config`, Hydra's errors become one clear message."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from megdet.config.explain import explain, explain_value, is_of_composition, no_such_key
from megdet.config.locations import CONF, LAUNCH, own_conf
from megdet.config.register import register
from megdet.config.schema import Config
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError

MOST_POINTS = 100_000
"""Of a sweep."""


@dataclass(frozen=True)
class Asked:
    """One experiment, and the overrides that distinguish it within its sweep."""

    overrides: tuple[str, ...]
    config: Config


def to_config(composed: DictConfig) -> Config:
    """The plain dataclass of a composed config. Raises UserError for a missing value."""
    composed = deepcopy(composed)
    with open_dict(composed):
        composed.pop("hydra", None)
    try:
        config = OmegaConf.to_object(composed)
    except Exception as error:  # whatever a value makes OmegaConf raise
        key = getattr(error, "full_key", None) or "config"
        raise UserError(f"{key}: {' '.join(str(error).partition(chr(10))[0].split())}; give it a value") from error
    assert isinstance(config, Config)
    _refuse_unknown_keys(config)
    return config


def _refuse_unknown_keys(values: Any, prefix: str = "") -> None:
    """Refuse `+key=value`, which passes the schema as an attribute that is no field."""
    known = {field.name for field in fields(values)}
    for name, value in vars(values).items():
        if name not in known:
            raise UserError(f"+{prefix}{name}: {no_such_key(prefix + name)}")
        if is_dataclass(value):
            _refuse_unknown_keys(value, f"{prefix}{name}.")


@contextmanager
def composing(overrides: Sequence[str]) -> Iterator[None]:
    """Makes UserError of whatever Hydra and OmegaConf raise inside; errors of our own code stay what they are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_of_composition(error):
            raise
        raise UserError(explain(error, overrides)) from error


def compose(overrides: Sequence[str], *, folders: Sequence[str] = ()) -> Config:
    """The experiment that overrides ask for, without a command line. Raises UserError.

    `folders` have further options, as those of --config-dir do.
    A running Hydra is left as it was.
    """
    return compose_with_launcher(overrides, folders=folders)[0]


def compose_with_launcher(overrides: Sequence[str], *, folders: Sequence[str] = ()) -> tuple[Config, str]:
    """The experiment as `compose` gives it, and what `hydra/launcher` it is for."""
    with _hydra_of_its_own(overrides, folders) as search:
        composed = hydra.compose("config", [*search, *overrides], return_hydra_config=True)
        return to_config(composed), _launcher_in(composed)


def compose_sweep(overrides: Sequence[str]) -> tuple[list[Asked], str]:
    """The experiments of a command with -m, and what `hydra/launcher` they are for. Raises UserError."""
    with _hydra_of_its_own(overrides, ()) as search:
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [*search, *overrides], run_mode=RunMode.MULTIRUN)
        return compose_points(loader, master, list(master.hydra.overrides.task)), _launcher_in(master)


@contextmanager
def _hydra_of_its_own(overrides: Sequence[str], folders: Sequence[str]) -> Iterator[list[str]]:
    """Hydra set up for `conf/`; the overrides that say where else options are. A running one is left as it was."""
    register()
    own = own_conf()
    places = [*map(str, filter(None, [own])), *(str(Path(folder).resolve()) for folder in folders)]
    at_work, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with composing(overrides), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield [f"hydra.searchpath={[f'file://{place}' for place in places]}"] if places else []
    finally:
        GlobalHydra.instance().hydra = at_work


def _launcher_in(composed: DictConfig) -> str:
    return str(composed.hydra.runtime.choices["hydra/launcher"])


def compose_one(composed: DictConfig) -> Asked:
    """The experiment of a command without -m. Raises UserError where it asks for a whole table."""
    config = to_config(composed)
    if config.sweep.rows is not None:
        raise UserError(
            f"sweep.rows={config.sweep.rows} asks for the rows of a table; add -m to run them all: "
            f"{LAUNCH} -m sweep.rows={config.sweep.rows} ..."
        )
    return Asked((), config)


def compose_points(loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> list[Asked]:
    """The experiments of a sweep: every combination of the swept values, in the order they were written.

    Where `sweep.rows` names a table, each combination is run for all of its rows, in the table's order; what the
    command line says itself, a row does not change.

    Hydra composes once for each choice of groups (this takes it 50 ms); plain values are then set in copies.
    """
    with composing(arguments):
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    refuse_launcher_settings(master.hydra.overrides.hydra)
    refuse_doubles(overrides)
    swept = [o for o in overrides if o.is_sweep_override()]
    for override in swept:
        if not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: sweep over a list (1,2), a choice(), a range() or a glob()")
    groups = set(loader.list_groups(""))
    fixed = [str(o.input_line) for o in overrides if o not in swept]
    keys = [o.key_or_group for o in overrides]
    structural = [_needs_composition(o, groups) for o in swept]
    bases: dict[tuple[str, ...], _Base] = {}

    def base_of(choices: tuple[str, ...]) -> _Base:
        if choices not in bases:
            with composing(all_of := [*fixed, *choices]):
                bases[choices] = _Base(loader.load_sweep_config(master, all_of))
        return bases[choices]

    asked = []
    for values in itertools.product(*_values_of(swept)):
        choices = tuple(value for value, is_choice in zip(values, structural, strict=True) if is_choice)
        plain = [value for value, is_choice in zip(values, structural, strict=True) if not is_choice]
        base = base_of(choices)
        if not base.rows:
            asked.append(Asked(values, base.with_values(plain)))
        for row in base.rows:
            own = row.without(keys)
            row_choices = [value for value in own if _is_group(value.partition("=")[0], groups)]
            try:
                row_base = base_of((*choices, *row_choices))
                config = row_base.with_values([*(value for value in own if value not in row_choices), *plain])
            except UserError as error:
                raise UserError(f"{row.place}: {error}") from error
            asked.append(Asked((*values, *own), config))
    return asked


def compose_trial(loader: ConfigLoader, master: DictConfig, fixed: Sequence[str], chosen: Sequence[str]) -> Asked:
    """The experiment of a trial: what a study leaves as it is, and what is `chosen` for the trial. Raises UserError."""
    points = compose_points(loader, master, [*fixed, *chosen])
    rows = points[0].config.sweep.rows
    if rows is not None:
        raise UserError(f"sweep.rows={rows} asks for a table, and a study looks for the best of one experiment")
    return Asked(tuple(chosen), points[0].config)


def refuse_doubles(overrides: Sequence[Override]) -> None:
    """Raises UserError where a key that is swept is set once more: one of the two would be dropped."""
    for override in (o for o in overrides if o.is_sweep_override()):
        again = [o for o in overrides if o is not override and o.key_or_group == override.key_or_group]
        if again:
            raise UserError(
                f"{override.input_line} and {again[0].input_line} both set {override.key_or_group}; keep one of them"
            )


def refuse_launcher_settings(hydra_overrides: Sequence[str]) -> None:
    """What submitit's plugin for Hydra takes as `hydra.launcher.timeout_min=60` is `cluster.time_min=60` here.

    Raises UserError for such an override among those of the command line that begin with `hydra`.
    """
    for override in hydra_overrides:
        name, _, value = override.lstrip("+~").partition("=")
        if not name.startswith("hydra.launcher."):
            continue
        setting = name.removeprefix("hydra.launcher.")
        ours = _OF_SUBMITITS_PLUGIN.get(setting.removeprefix("slurm_"))
        way_out = f"use {ours}={value}" if ours else "settings of jobs are cluster.* here (python launch.py --cfg job)"
        raise UserError(f"{override}: megdet's launchers take no hydra.launcher settings; {way_out}")


_OF_SUBMITITS_PLUGIN = {
    "timeout_min": "cluster.time_min",
    "partition": "cluster.partition",
    "account": "cluster.account",
    "qos": "cluster.qos",
    "constraint": "cluster.constraint",
    "nodes": "cluster.nodes",
    "gpus_per_node": "cluster.gpus_per_node",
    "gpus_per_task": "gpus",
    "tasks_per_node": "gpus",
    "cpus_per_task": "cluster.cpus_per_gpu",
    "mem_gb": "cluster.mem_gb_per_gpu",
    "mem_per_gpu": "cluster.mem_gb_per_gpu",
    "array_parallelism": "cluster.array_parallelism",
    "setup": "cluster.setup",
    "srun_args": "cluster.srun_args",
    "additional_parameters": "cluster.sbatch_options",
    "signal_delay_s": "cluster.signal_delay_s",
    "max_num_timeout": "cluster.max_retries",
}
"""What a setting of hydra-submitit-launcher is called here."""


def _needs_composition(override: Override, groups: set[str]) -> bool:
    """Whether an override chooses a group, adds or deletes a key, which only Hydra can compose.

    The rows of a sweep count as a choice: they bring choices of their own.
    """
    changes = override.type is not None and override.type.name == "CHANGE"
    return not changes or _is_group(override.key_or_group, groups) or override.key_or_group == "sweep.rows"


def _is_group(key: str, groups: set[str]) -> bool:
    """Whether a key chooses a file: `model`, `model/backbone`."""
    return "/" in key or key in groups


def _values_of(swept: Sequence[Override]) -> list[list[str]]:
    """For each swept key its single overrides. Raises UserError where there is none, or the points are too many."""
    values = []
    for override in swept:
        found = []
        if (least := _at_least(override)) <= MOST_POINTS:
            with composing([str(override.input_line)]):
                found = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            least = len(found)
        if not least:
            raise UserError(f"{override.input_line}: a sweep without a value; give at least one")
        values.append(found)
        points = math.prod(map(len, values[:-1])) * least
        if points > MOST_POINTS:
            raise UserError(
                f"{override.input_line}: that makes {points:,.6g} points or more, and a sweep has {MOST_POINTS:,} at "
                "most; ask for fewer values"
            )
    return values


def _at_least(override: Override) -> float:
    """How many values a range() has, which could be endless; 0 where others are to be counted."""
    swept = override.value()
    if not isinstance(swept, RangeSweep):
        return 0
    if not swept.step or any(not math.isfinite(bound) for bound in (swept.start or 0, swept.stop or 0, swept.step)):
        raise UserError(f"{override.input_line}: a range() needs finite bounds and a step other than 0")
    return max(0.0, ((swept.stop or 0) - (swept.start or 0)) / swept.step)


class _Base:
    """One composition, and the experiments that differ from it in plain values.

    OmegaConf takes milliseconds for a copy, so a value is checked against the schema once and then set in a copy of
    the plain dataclass. Only where that could miss something (values that refer to others, whole nodes) does
    OmegaConf make each copy.
    """

    def __init__(self, composed: DictConfig) -> None:
        with open_dict(composed):
            del composed["hydra"]
        self._composed = composed
        self._config = to_config(composed)
        self._scratch = deepcopy(composed)
        self._values: dict[str, tuple[list[str], Any]] = {}
        self._refers = "${" in OmegaConf.to_yaml(composed)
        rows = self._config.sweep.rows
        self.rows = [] if rows is None else read_rows(rows)

    def with_values(self, assignments: list[str]) -> Config:
        """A copy with `key=value`s set, in this order. Raises UserError."""
        if self._refers or any("${" in assignment or "???" in assignment for assignment in assignments):
            return self._composed_with(assignments)
        config = deepcopy(self._config)
        for assignment in assignments:
            path, value = self._value(assignment)
            place: Any = config
            for name in path[:-1]:
                place = getattr(place, name, None)
            if not is_dataclass(place) or is_dataclass(value) or isinstance(value, dict):
                return self._composed_with(assignments)
            setattr(place, path[-1], deepcopy(value))
        return config

    def _value(self, assignment: str) -> tuple[list[str], Any]:
        if assignment not in self._values:
            key = _assign(self._scratch, assignment)
            value = OmegaConf.select(self._scratch, key)
            plain = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
            self._values[assignment] = key.split("."), plain
        return self._values[assignment]

    def _composed_with(self, assignments: list[str]) -> Config:
        composed = deepcopy(self._composed)
        for assignment in assignments:
            _assign(composed, assignment)
        return to_config(composed)


def _assign(composed: DictConfig, assignment: str) -> str:
    """Set `key=value`; the key. Raises UserError where the schema does not take it."""
    with composing([assignment]):
        [override] = OverridesParser.create().parse_overrides([assignment])
    try:
        OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except Exception as error:  # whatever a value makes OmegaConf raise
        raise UserError(explain_value(assignment, error)) from error
    return override.key_or_group
