"""Experiments that differ in plain values alone, from one composition."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import is_dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from megdet.config.compose import reading, to_config
from megdet.config.explain import explain_value
from megdet.config.schema import Config
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError


class Composed:
    """One composition, and the experiments that differ from it in plain values.

    OmegaConf takes milliseconds for a copy, so a value is checked against the schema once and then set in a copy of
    the plain dataclass. Only where that could miss something (values that refer to others, whole nodes) does
    OmegaConf make each copy.
    """

    def __init__(self, composed: DictConfig) -> None:
        self._config = to_config(composed)
        with open_dict(composed):
            del composed["hydra"]
        self._composed = composed
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
    with reading([assignment]):
        [override] = OverridesParser.create().parse_overrides([assignment])
    try:
        OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except Exception as error:  # whatever a value makes OmegaConf raise
        raise UserError(explain_value(assignment, error)) from error
    return override.key_or_group
