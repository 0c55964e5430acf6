"""Between Hydra and the schema: composed configs become `Config`, Hydra's errors become one clear message."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from megdet.config.locations import CONF, LAUNCH, own_conf
from megdet.config.register import register
from megdet.config.schema import Config
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError


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
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, Config)
    _refuse_unknown_keys(config)
    return config


def _refuse_unknown_keys(values: Any, prefix: str = "") -> None:
    """Refuse `+key=value`, which passes the schema as an attribute that is no field."""
    known = {field.name for field in fields(values)}
    for name, value in vars(values).items():
        if name not in known:
            raise UserError(f"+{prefix}{name}: {_no_such_key(prefix + name)}")
        if is_dataclass(value):
            _refuse_unknown_keys(value, f"{prefix}{name}.")


def compose(overrides: Sequence[str], *, folders: Sequence[str] = ()) -> Config:
    """The experiment that overrides ask for, without a command line. Raises UserError.

    `folders` have further options, as those of --config-dir do.
    A running Hydra is left as it was.
    """
    register()
    own = own_conf()
    places = [*map(str, filter(None, [own])), *(str(Path(folder).resolve()) for folder in folders)]
    search = [f"hydra.searchpath={[f'file://{place}' for place in places]}"] if places else []
    at_work, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return to_config(hydra.compose("config", [*search, *overrides]))
    except HydraException as error:
        raise UserError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra = at_work


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
            bases[choices] = _Base(loader.load_sweep_config(master, [*fixed, *choices]))
        return bases[choices]

    asked = []
    for values in itertools.product(*(list(_single_overrides(o)) for o in swept)):
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
            except HydraException as error:
                raise UserError(f"{row.place}: {explain(error)}") from error
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


def _single_overrides(override: Override) -> Iterator[str]:
    for value in override.sweep_string_iterator():
        yield f"{override.get_key_element()}={value}"


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
    [override] = OverridesParser.create().parse_overrides([assignment])
    try:
        OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException as error:
        raise UserError(_explain_value(assignment, error)) from error
    return override.key_or_group


def explain(error: HydraException) -> str:
    """An error of Hydra's as a user should read it: the mistake in one line, and a suggestion."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        near = _did_you_mean(difflib.get_close_matches(option, options, cutoff=0.4))
        return f"{group}={option}: there is no such option.{near} Choose from: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read.{_quoting_hint(str(error.override))}"
    key = _quoted_key(text)
    if key and key not in _known_keys():
        return f"{key}: {_no_such_key(key)}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _explain_value(text.removeprefix("Error merging override "), error.__cause__)
    return text


def _quoting_hint(override: str) -> str:
    """Hydra's own grammar gives a meaning to many characters that paths have."""
    key, equals, value = override.partition("=")
    if not equals:
        return " Write KEY=VALUE."
    quoted = value.replace("'", "\\'")
    return f" Its value has characters that Hydra reads as grammar; quote it twice: \"{key}='{quoted}'\""


def _explain_value(override: str, error: OmegaConfBaseException) -> str:
    key = override.partition("=")[0]
    if "=" in override and key not in _known_keys():
        return f"{key}: {_no_such_key(key)}"
    inner = [name for name in _known_keys() if name.startswith(f"{key}.")]
    if inner:
        group = key.replace(".", "/")
        choose = f"choose a file of conf/{group} with {group}=NAME, or " if (CONF / group).is_dir() else ""
        return f"{override}: {key} has settings of its own; {choose}set one of them, such as {inner[0]}."
    return f"{override}: {str(error).splitlines()[0]}."


def _no_such_key(key: str) -> str:
    if ".custom." in key:
        return f"there is no such argument. A part of your own gets another with +{key}=..., beside its _target_."
    return f"there is no such key.{_near(key, _known_keys())} `{LAUNCH} --cfg job` lists all keys."


def _quoted_key(text: str) -> str | None:
    """The key in Hydra's "Could not override 'key'." and its like."""
    for opening in ("Could not override '", "Could not append to config. An item is already at '"):
        if text.startswith(opening):
            return text[len(opening) :].partition("'")[0]
    return None


def _near(key: str, known: list[str]) -> str:
    """` Did you mean ...?`, or nothing. Also by the last part of a key: momentun is near optimizer.momentum."""
    exact = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if exact:
        return _did_you_mean(exact)
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(known)}
    last_parts = difflib.get_close_matches(key.rpartition(".")[2], list(by_last_part), cutoff=0.75)
    return _did_you_mean([*difflib.get_close_matches(key, known), *(by_last_part[part] for part in last_parts)])


def _did_you_mean(near: list[str]) -> str:
    unique = list(dict.fromkeys(near))[:3]
    return f" Did you mean {' or '.join(unique)}?" if unique else ""


def _known_keys() -> list[str]:
    return ["experiment", *_keys_of(Config)]


def _keys_of(schema: type[Any], prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for field in fields(schema):
        yield prefix + field.name
        if is_dataclass(hints[field.name]):
            yield from _keys_of(hints[field.name], f"{prefix}{field.name}.")
