"""Between Hydra and the schema: composed configs become `Config`, Hydra's errors become one clear message."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from megdet.config import Config
from megdet.errors import UserError
from megdet.sweep import Asked


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


def compose_points(loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> list[Asked]:
    """The experiments of a sweep: every combination of the swept values, in the order they were written.

    Hydra composes once for each choice of groups (this takes it 50 ms); plain values are then set in copies.
    """
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    swept = [o for o in overrides if o.is_sweep_override()]
    for override in swept:
        if not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: sweep over a list (1,2), a choice(), a range() or a glob()")
    structural = [o for o in swept if _needs_composition(loader, o)]
    fixed = [str(o.input_line) for o in overrides if o not in swept]
    points = []
    for values in itertools.product(*(list(_single_overrides(o)) for o in swept)):
        points.append(dict(zip((id(o) for o in swept), values, strict=True)))
    bases: dict[tuple[str, ...], DictConfig] = {}
    asked = []
    for point in points:
        groups = tuple(point[id(o)] for o in structural)
        if groups not in bases:
            bases[groups] = loader.load_sweep_config(master, [*fixed, *groups])
            with open_dict(bases[groups]):
                del bases[groups]["hydra"]
        rest = [point[id(o)] for o in swept if o not in structural]
        asked.append(Asked(tuple(point.values()), to_config(_with_values(bases[groups], rest))))
    return asked


def _needs_composition(loader: ConfigLoader, override: Override) -> bool:
    """Whether an override chooses a group, adds or deletes: what only Hydra's own composition can do."""
    return override.type is None or override.type.name != "CHANGE" or override.key_or_group in loader.list_groups("")


def _single_overrides(override: Override) -> Iterator[str]:
    for value in override.sweep_string_iterator():
        yield f"{override.get_key_element()}={value}"


def _with_values(base: DictConfig, assignments: list[str]) -> DictConfig:
    config = deepcopy(base)
    for override in OverridesParser.create().parse_overrides(assignments):
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException as error:
            raise UserError(_explain_value(str(override.input_line), error)) from error
    return config


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
