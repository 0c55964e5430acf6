"""The experiments that a command asks for: one, the points of a sweep, or a trial of a study."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig

from megdet.config.compose import composing, hydra_of_its_own, launcher_in, reading, to_config
from megdet.config.launcher_settings import refuse_launcher_settings
from megdet.config.locations import LAUNCH
from megdet.config.plain_values import Composed
from megdet.config.schema import Config
from megdet.config.swept_values import refuse_doubles, values_of
from megdet.errors import UserError


@dataclass(frozen=True)
class Asked:
    """One experiment, and the overrides that distinguish it within its sweep."""

    overrides: tuple[str, ...]
    config: Config


def compose_one(composed: DictConfig) -> Asked:
    """The experiment of a command without -m. Raises UserError where it asks for a whole table."""
    config = to_config(composed)
    if config.sweep.rows is not None:
        raise UserError(
            f"sweep.rows={config.sweep.rows} asks for the rows of a table; add -m to run them all: "
            f"{LAUNCH} -m sweep.rows={config.sweep.rows} ..."
        )
    return Asked((), config)


def compose_sweep(overrides: Sequence[str]) -> tuple[list[Asked], str]:
    """The experiments of a command with -m, and what `hydra/launcher` they are for. Raises UserError."""
    with hydra_of_its_own(overrides, ()) as search:
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [*search, *overrides], run_mode=RunMode.MULTIRUN)
        return compose_points(loader, master, list(master.hydra.overrides.task)), launcher_in(master)


def compose_points(loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> list[Asked]:
    """The experiments of a sweep: every combination of the swept values, in the order they were written.

    Where `sweep.rows` names a table, each combination is run for all of its rows, in the table's order; what the
    command line says itself, a row does not change.

    Hydra composes once for each choice of groups (this takes it 50 ms); plain values are then set in copies.
    """
    with reading(arguments):
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
    bases: dict[tuple[str, ...], Composed] = {}

    def base_of(choices: tuple[str, ...]) -> Composed:
        if choices not in bases:
            with composing(all_of := [*fixed, *choices]):
                bases[choices] = Composed(loader.load_sweep_config(master, all_of))
        return bases[choices]

    asked = []
    for values in itertools.product(*values_of(swept)):
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


def _needs_composition(override: Override, groups: set[str]) -> bool:
    """Whether an override chooses a group, adds or deletes a key, which only Hydra can compose.

    The rows of a sweep count as a choice: they bring choices of their own.
    """
    changes = override.type is not None and override.type.name == "CHANGE"
    return not changes or _is_group(override.key_or_group, groups) or override.key_or_group == "sweep.rows"


def _is_group(key: str, groups: set[str]) -> bool:
    """Whether a key chooses a file: `model`, `model/backbone`."""
    return "/" in key or key in groups
