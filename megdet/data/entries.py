"""One list of an annotation file, read column by column into arrays, or a message on the bad entry."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotation_json import MISSING
from megdet.errors import UserError

MAX_ID = 2**53
"""Detections are float64 rows with the ids in them; beyond this, neighbouring ids would be one."""

Indices = Sequence[int] | NDArray[np.int64]
"""Of entries, rising."""

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


@dataclass
class Entries:
    """A list of an annotation file: `images`, `categories` or `annotations`."""

    path: Path
    name: str
    items: Sequence[Any]
    repairs: list[str] = field(default_factory=list)
    """What was read otherwise than it is written, for the user."""

    def __len__(self) -> int:
        return len(self.items)

    def column(self, key: str) -> list[Any]:
        """The values of a key; MISSING where an entry does not have it."""
        return [getattr(item, key) for item in self.items]

    def place(self, index: int) -> str:
        """How messages name an entry."""
        own = self.items[index].id
        return f"{self.name}[{index}]" + ("" if own is MISSING else f" (id {shown(own)})")

    def whole_numbers(self, key: str, *, least: int, most: int, way_out: str) -> NDArray[np.int64]:
        """int64 [n]. Whole numbers written as text or with a decimal point are repaired; others raise UserError."""
        values = self.column(key)
        if set(map(type, values)) <= {int} and (not values or (least <= min(values) and max(values) <= most)):
            return np.array(values, dtype=np.int64)
        read = self.read_each(key, lambda value: _whole_number(value, least, most), way_out)
        odd = [index for index, value in enumerate(values) if type(value) is not int]
        self.repaired(odd, f"values of {key} not written as whole numbers, read as such", values)
        return np.array(read, dtype=np.int64)

    def read_each(self, key: str, read: Callable[[Any], Any], way_out: str) -> list[Any]:
        """What `read` makes of each value; it raises ValueError(why not), and this UserError on all such entries."""
        results, bad, why = [], [], ""
        for index, value in enumerate(self.column(key)):
            try:
                results.append(read(value))
            except ValueError as error:
                why = why or str(error)
                bad.append(index)
        if bad:
            value = getattr(self.items[bad[0]], key)
            has = f"has no {key}" if value is MISSING else f"has {key} {shown(value)}: {why}"
            self.refuse(bad, has, way_out)
        return results

    def repaired(self, indices: Indices, what: str, values: Sequence[Any] | NDArray[Any] | None = None) -> None:
        """Note that these entries, if any, were read otherwise than they are written."""
        if len(indices):
            first = int(indices[0])
            value = "" if values is None or values[first] is MISSING else f": {shown(values[first])}"
            self.repairs.append(f"{self.path.name}: {what}: {len(indices)} (first: {self.place(first)}{value})")

    def refuse(self, indices: Indices, fault: str, way_out: str) -> NoReturn:
        """Raise UserError on the first of these entries, and say how many more there are."""
        more = f"; {len(indices) - 1} more like it" if len(indices) > 1 else ""
        raise UserError(f"{self.path}: {self.place(int(indices[0]))} {fault}{more}. {way_out}")


def shown(value: Any) -> str:
    """A JSON value for a message, cut where it is long."""
    if value is MISSING:
        return "nothing"
    try:
        text = json.dumps(value.tolist() if isinstance(value, np.ndarray) else value, ensure_ascii=False)
    except RecursionError:
        return "lists in lists in lists"
    return text if len(text) <= 60 else text[:57] + "..."


def number(value: Any) -> float:
    """A finite number, also one written as text. Raises ValueError with what it is instead."""
    if type(value) is str and _NUMBER.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError("it has a number that is not finite")
    return result


def _whole_number(value: Any, least: int, most: int) -> int:
    if value is MISSING:
        raise ValueError("missing")
    if type(value) is str and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise ValueError("not a whole number")
    if value < least:
        raise ValueError("negative" if least == 0 else f"less than {least}")
    if value > most:
        raise ValueError("above 2^53" if most == MAX_ID else f"above {most:,}")
    return value
