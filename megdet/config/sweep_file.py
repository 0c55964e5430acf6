"""Sweeps as lists of rows instead of a grid: `sweep=table3` reads `sweeps/table3.yaml`.

A file has `rows`, and each row an `ask`: what `launch.py` is asked for. `analysis/paper.py` reads the same files
for the paper's numbers beside it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from megdet.config.locations import SWEEPS
from megdet.errors import UserError


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


def read_rows(name: str) -> list[Row]:
    """The rows of `sweeps/<name>.yaml`, or of the YAML file that `name` is the path of. Raises UserError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SWEEPS / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        there = sorted(file.stem for file in SWEEPS.glob("*.yaml") if _can_be_run(file))
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"sweep.rows={name}: there is no {path}.{meant} Use one of {', '.join(there)}, or the path of a YAML file."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"sweep.rows={name}: {path} cannot be read ({error})") from None
    rows = _rows_of(content)
    if not rows:
        raise UserError(f"{path}: a sweep file has `rows`, a list with an `ask` in each")
    if not any(map(_asks, rows)):
        raise UserError(f"sweep.rows={name}: nothing is to be run for it: no row of {path} has an `ask` for launch.py")
    return [_row(f"{path.name}, row {number}", row) for number, row in enumerate(rows, start=1)]


def _can_be_run(file: Path) -> bool:
    """Whether a file has rows to run: a published table may have results only, a draft may not be YAML."""
    try:
        return any(map(_asks, _rows_of(yaml.safe_load(file.read_text()))))
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _rows_of(content: Any) -> list[Any]:
    """The `rows` of a file; none where it has no such list."""
    rows = content.get("rows") if isinstance(content, dict) else None
    return rows if isinstance(rows, list) else []


def _asks(row: Any) -> bool:
    return isinstance(row, dict) and "ask" in row


def _row(place: str, row: Any) -> Row:
    ask = row.get("ask") if isinstance(row, dict) else None
    if not isinstance(ask, dict) or not ask:
        raise UserError(f"{place}: has no `ask`; write what launch.py is asked for, as in ask: {{batch: 16}}")
    return Row(place, tuple(f"{key}={_text(value)}" for key, value in ask.items()))


def _text(value: Any) -> str:
    """A value as the command line spells it."""
    return value if isinstance(value, str) else json.dumps(value)
