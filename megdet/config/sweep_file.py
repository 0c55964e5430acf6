"""Sweeps as lists of rows instead of a grid: `sweep=table3` reads `sweeps/table3.yaml`.

A file has `rows`, and each row an `ask`: what `launch.py` is asked for. `analysis/paper.py` reads the same files
for the paper's numbers beside it.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from megdet.config.locations import SWEEPS
from megdet.config.own_files import BASE_60
from megdet.data.regular_file import open_regular
from megdet.errors import UserError
from megdet.settings.paths import expanded


@dataclass(frozen=True)
class Row:
    """What one row asks for."""

    place: str
    """File and number of the row, for messages."""
    overrides: tuple[str, ...]
    """As on the command line: `batch=16`, `lr.scale=0.5`."""

    def without(self, keys: Sequence[str]) -> tuple[str, ...]:
        """The rows without `keys` that the command line sets: it takes precedence."""
        return tuple(
            override
            for override in self.overrides
            if not any(f"{_dotted(override.partition('=')[0])}.".startswith(f"{_dotted(key)}.") for key in keys)
        )


def _dotted(key: str) -> str:
    """`model/backbone` chooses what is under `model.backbone`."""
    return key.replace("/", ".")


def path_of_rows(name: str) -> Path:
    """The file that `sweep.rows=name` means."""
    return expanded(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"


def read_rows(name: str) -> list[Row]:
    """The rows of `sweeps/<name>.yaml`, or of the YAML file that `name` is the path of. Raises UserError."""
    path = path_of_rows(name)
    if not os.path.lexists(path):
        there = sorted(file.stem for file in SWEEPS.glob("*.yaml") if _can_be_run(file))
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"sweep.rows={name}: there is no {path}.{meant} Use one of {', '.join(there)}, or the path of a YAML file."
        )
    rows = _rows_of(read_sweep_file(path))
    if not rows:
        raise UserError(f"{path}: a sweep file has `rows`, a list with an `ask` in each")
    if not any(map(_asks, rows)):
        raise UserError(f"sweep.rows={name}: nothing is to be run for it: no row of {path} has an `ask` for launch.py")
    return [_row(f"{path.name}, row {number}", row) for number, row in enumerate(rows, start=1)]


def read_sweep_file(path: Path) -> dict[str, Any]:
    """The content of a YAML file; empty where it is no mapping. Raises UserError where it cannot be read."""
    try:
        with open_regular(path) as file:
            content = yaml.load(file.read().decode(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be a sweep file") from None
    except (ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path} is not YAML as a sweep file has it ({where}{what}); mend it there") from None
    return content if isinstance(content, dict) else {}


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """A key that is there twice is an error, as YAML has it; PyYAML would drop the first without a word. So is
    12:00:00, which it would read as 43200."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[tuple[str, str]] = set()
        for key, _ in getattr(node, "value", ()):
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in (_INT, _FLOAT) and BASE_60.fullmatch(node.value):
            what = f"{node.value} is a number of base 60; write one number, or quote a text"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return super().construct_scalar(node)


def _can_be_run(file: Path) -> bool:
    """Whether a file has rows to run: a published table may have results only, a draft may not be YAML."""
    try:
        return any(map(_asks, _rows_of(read_sweep_file(file))))
    except UserError:
        return False


def _rows_of(content: dict[str, Any]) -> list[Any]:
    """The `rows` of a file; none where it has no such list."""
    rows = content.get("rows")
    return rows if isinstance(rows, list) else []


def _asks(row: Any) -> bool:
    return isinstance(row, dict) and "ask" in row


def _row(place: str, row: Any) -> Row:
    ask = row.get("ask") if isinstance(row, dict) else None
    if not isinstance(ask, dict) or not ask:
        raise UserError(f"{place}: has no `ask`; write what launch.py is asked for, as in ask: {{batch: 16}}")
    if of_the_sweep := [str(key) for key in ask if _dotted(str(key)).partition(".")[0] in ("sweep", "hydra")]:
        raise UserError(
            f"{place}: {of_the_sweep[0]} is for a whole sweep, not for one of its rows; give it on the command line"
        )
    try:
        return Row(place, tuple(f"{key}={_text(value)}" for key, value in ask.items()))
    except (TypeError, ValueError):  # a date, a set, a list within itself
        raise UserError(
            f"{place}: its `ask` has a value that is none of a setting; quote it, as in '2026-01-01'"
        ) from None


def _text(value: Any) -> str:
    """A value as the command line spells it."""
    return value if isinstance(value, str) else json.dumps(value)
