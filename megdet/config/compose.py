"""Between Hydra and the schema: composed configs become `Config`, Hydra's errors become one clear message."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from megdet.config.locations import CONF
from megdet.config.schema import Config
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError


@dataclass(frozen=True)
class Asked:
    """One experiment, and the overrides that tell it from the others of its sweep."""

    overrides: tuple[str, ...]
    config: Config


def register_schema() -> None:
    """Make `Config` the base of `conf/config.yaml`, so that a mistyped key or a wrong type is an error."""
    ConfigStore.instance().store(name="base_config", node=Config, provider="megdet")


def to_config(composed: DictConfig) -> Config:
    """The plain dataclass behind a composed config. Raises UserError for a value that was never given."""
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
    """`+key=value` gets past the schema; the object has it as an attribute that is no field."""
    known = {field.name for field in fields(values)}
    for name, value in vars(values).items():
        if name not in known:
            raise UserError(f"+{prefix}{name}: {_no_such_key(prefix + name)}")
        if is_dataclass(value):
            _refuse_unknown_keys(value, f"{prefix}{name}.")


def compose(overrides: Sequence[str]) -> Config:
    """The experiment that overrides ask for, without a command line. Raises UserError.

    Hydra may be at work on a command line meanwhile: it is left as it was.
    """
    register_schema()
    at_work, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return to_config(hydra.compose("config", list(overrides)))
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
            f"python launch.py -m sweep.rows={config.sweep.rows} ..."
        )
    return Asked((), config)


def compose_points(loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> list[Asked]:
    """The experiments of a sweep: every combination of the swept values, in the order they were written.

    Where `sweep.rows` names a table, each combination is run for all of its rows, in the table's order; what the
    command line says itself, a row does not change.

    Hydra composes once for each choice of groups (this takes it 50 ms); plain values are then set in copies.
    """
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
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
            row_choices = [value for value in own if value.partition("=")[0] in groups]
            try:
                row_base = base_of((*choices, *row_choices))
                config = row_base.with_values([*(value for value in own if value not in row_choices), *plain])
            except HydraException as error:
                raise UserError(f"{row.place}: {explain(error)}") from error
            except UserError as error:
                raise UserError(f"{row.place}: {error}") from error
            asked.append(Asked((*values, *own), config))
    return asked


def _needs_composition(override: Override, groups: set[str]) -> bool:
    """Whether an override chooses a group, adds or deletes: what only Hydra's own composition can do.

    The rows of a sweep count as a choice: they bring choices of their own.
    """
    changes = override.type is not None and override.type.name == "CHANGE"
    return not changes or override.key_or_group in groups or override.key_or_group == "sweep.rows"


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
    """What a user should read for an error of Hydra's: the mistake in one line, and what may have been meant."""
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options)
        near = _did_you_mean(difflib.get_close_matches(option, options, cutoff=0.4))
        return f"{group}={option}: there is no such option.{near} Choose from: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({text.splitlines()[0]})."
    key = _quoted_key(text)
    if key and key not in _known_keys():
        return f"{key}: {_no_such_key(key)}"
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _explain_value(text.removeprefix("Error merging override "), error.__cause__)
    return text


def _explain_value(override: str, error: OmegaConfBaseException) -> str:
    key = override.partition("=")[0]
    if "=" in override and key not in _known_keys():
        return f"{key}: {_no_such_key(key)}"
    return f"{override}: {str(error).splitlines()[0]}."


def _no_such_key(key: str) -> str:
    return f"there is no such key.{_near(key, _known_keys())} `python launch.py --cfg job` lists all keys."


def _quoted_key(text: str) -> str | None:
    """The key in Hydra's "Could not override 'key'." and its like."""
    for opening in ("Could not override '", "Could not append to config. An item is already at '"):
        if text.startswith(opening):
            return text[len(opening) :].partition("'")[0]
    return None


def _near(key: str, known: list[str]) -> str:
    """` Did you mean ...?`, or nothing. Also by the last part of a key: momentun is near optimizer.momentum."""
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
