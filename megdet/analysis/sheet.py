"""A sweep file read as a table: its title, its rows with the paper's numbers, and what is shown of our runs.

`docs/sweep-files.md` has the form. `launch.py` reads the same files for what to run (`megdet.config.sweep_file`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml  # type: ignore[import-untyped]

from megdet.analysis.asked import Asked, asked_settings
from megdet.analysis.cells import Format, decimals, hours, three_digits
from megdet.errors import UserError
from megdet.runs.journal import COCO_METRICS

FILE_KEYS = ("title", "label", "names", "gpus", "measure", "rows")
ROW_KEYS = ("ask", "label", "paper", "note")
MEASURE_KEYS = ("number", "better", "digits")
LABEL = "label"
"""In `names`: the column of the rows' labels."""
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
"""Units that a time may be shown in."""


@dataclass(frozen=True)
class Measure:
    """A number of each run that a table shows: an epoch's, after the last one."""

    name: str
    number: str
    """Its name in a journal's epochs."""
    unit: str = ""
    better: Literal["up", "down"] | None = None
    format: Format = three_digits

    @property
    def heading(self) -> str:
        return self.name + (f" ({self.unit})" if self.unit else "")

    @property
    def is_time(self) -> bool:
        return self.number.endswith("_s") and self.unit in SECONDS


@dataclass(frozen=True)
class SheetRow:
    """One row of a sweep file."""

    label: str
    asked: Asked | None
    """The settings that it asks for, as text (None: not set). None: it asks for nothing, it was published."""
    paper: Mapping[str, float | str]
    """The paper's numbers by the heading of a measure; `failed` where training diverged."""
    gpus: int | None = None
    """That it asks for."""
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """A sweep file."""

    title: str
    label: str
    names: Mapping[str, str]
    """Of each column that names a row its heading, and the setting that it shows or LABEL."""
    gpus: str | None
    """The heading of the column of GPUs; None: the table has none."""
    measures: tuple[Measure, ...]
    rows: tuple[SheetRow, ...]

    @property
    def asked(self) -> tuple[str, ...]:
        """The settings that any row asks for."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.asked or ()))


def read_sheet(path: Path) -> Sheet:
    """The sweep file as a table. Raises UserError for what it cannot be read as."""
    content = read_yaml(path)
    _check(content, FILE_KEYS, path.name)
    rows = content.get("rows")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: a sweep file has `rows`, a list with an `ask` in each")
    if not content.get("measure"):
        raise UserError(f"{path}: nothing is to be shown; name it as in measure: {{mmAP: mmAP}}")
    measures = tuple(
        _measure(heading, number, f"{path.name}, measure {heading}") for heading, number in content["measure"].items()
    )
    headings = [measure.heading for measure in measures]
    return Sheet(
        title=str(content.get("title", path.stem)),
        label=str(content.get("label", path.stem)),
        names=content.get("names", {"Name": LABEL}),
        gpus=content.get("gpus"),
        measures=measures,
        rows=tuple(_row(row, headings, f"{path.name}, row {place}") for place, row in enumerate(rows, start=1)),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A sweep file's content."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a sweep file has `rows`, a list with an `ask` in each")
    return content


def _measure(heading: str, given: Any, place: str) -> Measure:
    values = given if isinstance(given, dict) else {"number": given}
    _check(values, MEASURE_KEYS, place)
    number, better = values.get("number"), values.get("better")
    if not isinstance(number, str):
        raise UserError(f"{place}: `number` is the name of an epoch's number, such as mmAP; it is {number!r}")
    if better not in (None, "up", "down"):
        raise UserError(f"{place}: better={better}; write up or down, or leave it out")
    found = re.fullmatch(r"(.*\S) \(([^()]+)\)", heading)
    name, unit = (found[1], found[2]) if found else (heading, "")
    is_score = number in COCO_METRICS
    usual = decimals(1) if is_score else hours if number.endswith("_s") and unit in SECONDS else three_digits
    digits = values.get("digits")
    return Measure(
        name, number, unit, cast(Any, better or ("up" if is_score else None)),
        usual if digits is None else decimals(int(digits)),
    )  # fmt: skip


def _row(row: Any, headings: list[str], place: str) -> SheetRow:
    if not isinstance(row, dict):
        raise UserError(f"{place}: is no mapping; write it as in ask: {{batch: 16}}")
    _check(row, ROW_KEYS, place)
    ask, paper = row.get("ask"), row.get("paper") or {}
    if ask is not None and not isinstance(ask, dict):
        raise UserError(f"{place}: ask={ask!r} is no mapping; write what launch.py is asked for, as in {{batch: 16}}")
    _check(paper, headings, f"{place}, paper")
    for heading, value in paper.items():
        if value != "failed" and not isinstance(value, int | float):
            raise UserError(f"{place}, paper: {heading} is {value!r}; write a number, or failed")
    gpus = (ask or {}).get("gpus")
    return SheetRow(
        label=str(row.get("label", ", ".join(f"{key} {value}" for key, value in (ask or {}).items()))),
        asked=None if ask is None else _asked(ask, place),
        paper=paper,
        gpus=gpus if isinstance(gpus, int) else None,
        note=str(row.get("note", "")),
    )


def _asked(ask: Mapping[str, Any], place: str) -> Asked:
    try:
        return asked_settings(ask)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def _check(values: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    known = list(known)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise UserError(
                f"{place}: {key}: there is no such key; "
                + (f"did you mean {near[0]}?" if near else f"use {', '.join(known)}")
            )
