"""Between Hydra and the schema: composed configs become `Config`, Hydra's errors become one clear message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from megdet.config.explain import explain, fault_of_choices, is_of_composition, no_such_key
from megdet.config.locations import CONF, own_conf
from megdet.config.own_files import refuse_base_60
from megdet.config.register import register
from megdet.config.schema import Config
from megdet.errors import UserError


def to_config(composed: DictConfig) -> Config:
    """The plain dataclass of a composed config, best with Hydra's part, which names its files. Raises UserError for a
    missing value, and for what a file of the user's own cannot mean.
    """
    if "hydra" in composed:
        refuse_base_60(composed)
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
    """`reading` what is to be composed: UserError too for choices that Hydra would take and that cannot be meant."""
    if fault := fault_of_choices(overrides):
        raise UserError(fault)
    with reading(overrides):
        yield


@contextmanager
def reading(overrides: Sequence[str]) -> Iterator[None]:
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
    with hydra_of_its_own(overrides, folders) as search:
        composed = hydra.compose("config", [*search, *overrides], return_hydra_config=True)
        return to_config(composed), launcher_in(composed)


@contextmanager
def hydra_of_its_own(overrides: Sequence[str], folders: Sequence[str]) -> Iterator[list[str]]:
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


def launcher_in(composed: DictConfig) -> str:
    return str(composed.hydra.runtime.choices["hydra/launcher"])
