"""A sweep file read as a table: its title, its rows with the paper's numbers, and what is shown of our runs.

`docs/sweep-files.md` has the form. `launch.py` reads the same files for what to run (`megdet.config.sweep_file`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from megdet.analysis.asked import Asked, asked_settings, implied_settings
from megdet.analysis.cells import Format, decimals, hours, three_digits
from megdet.config.sweep_file import read_sweep_file
from megdet.errors import UserError
from megdet.runs.journal import SCORES
from megdet.settings.rules import shown

LABEL = "label"
"""In `names`: the column of the rows' labels."""
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
"""Units that a time may be shown in."""
MOST_DIGITS = 9


@dataclass(frozen=True)
class Measure:
    """A number of each run that a table shows: an epoch's, after the last one."""

    name: str
    number: str
    """Its name in a journal's epochs."""
    unit: str
    better: Literal["up", "down"] | None
    digits: int | None
    """To show after the point; None: three in all."""

    @property
    def heading(self) -> str:
        return self.name + (f" ({self.unit})" if self.unit else "")

    @property
    def is_time(self) -> bool:
        return self.number.endswith("_s") and self.unit in SECONDS

    @property
    def format(self) -> Format:
        return decimals(self.digits) if self.digits is not None else hours if self.is_time else three_digits


@dataclass(frozen=True)
class RowSpec:
    """One row."""

    label: str
    asked: Asked | None
    """The settings that it asks for. None: it asks for nothing, it was published."""
    paper: Mapping[str, float | str] = field(default_factory=dict)
    """The paper's numbers by the heading of a measure; `failed` where training diverged."""
    gpus: int | None = None
    """That it asks for."""
    note: str = ""
    implied: tuple[str, ...] = ()
    """Those of `asked` that it does not name: a file of conf/ that it chooses brings them."""


@dataclass(frozen=True)
class TableSpec:
    """A table, before it has runs."""

    title: str
    label: str
    names: Mapping[str, str]
    """Of each column that names a row its heading, and the setting that it shows or LABEL."""
    gpus: str | None
    """The heading of the column of GPUs; None: the table has none."""
    measures: tuple[Measure, ...]
    rows: tuple[RowSpec, ...]

    @property
    def asked(self) -> tuple[str, ...]:
        """The settings that any row asks for."""
        return tuple(dict.fromkeys(key for row in self.rows for key in row.asked or ()))


def read_spec(path: Path) -> TableSpec:
    """The table of a sweep file. Raises UserError for what it cannot be read as."""
    content = read_sweep_file(path)
    _check(content, ("title", "label", "names", "gpus", "measure", "rows"), path.name)
    if not isinstance(content.get("rows"), list) or not content["rows"]:
        raise UserError(f"{path}: a sweep file has `rows`, a list with an `ask` in each")
    if not isinstance(content.get("measure"), dict):
        raise UserError(f"{path}: nothing is to be shown; name it as in measure: {{mmAP: mmAP}}")
    for key in ("title", "label", "gpus"):
        if not isinstance(content.get(key, ""), str):
            raise UserError(f"{path}: {key} is {shown(content[key])}; write one line of text")
    names = content.get("names", {"Name": LABEL})
    if not isinstance(names, dict) or not all(isinstance(name, str) for pair in names.items() for name in pair):
        raise UserError(f"{path}: names is {shown(names)}; write it as in names: {{Batch Size: batch}}")
    measures = tuple(_measure(str(heading), given, path.name) for heading, given in content["measure"].items())
    headings = [measure.heading for measure in measures]
    rows = [_row(row, headings, f"{path.name}, row {place}") for place, row in enumerate(content["rows"], start=1)]
    asked = {key for row, _ in rows for key in row.asked or ()}
    for heading, key in names.items():
        if key != LABEL and key not in asked:
            way_out = f"use {', '.join(sorted({LABEL, *asked}))}"
            raise UserError(f"{path.name}, names: {heading} is to show {shown(key)}, which no row asks for; {way_out}")
    return TableSpec(
        title=str(content.get("title", path.stem)),
        label=str(content.get("label", path.stem)),
        names=names,
        gpus=content.get("gpus"),
        measures=measures,
        rows=tuple(_with_implied([row for row, _ in rows], [implied for _, implied in rows])),
    )


def _measure(heading: str, given: Any, file: str) -> Measure:
    place = f"{file}, measure {heading}"
    values = given if isinstance(given, dict) else {"number": given}
    _check(values, ("number", "better", "digits"), place)
    number, better, digits = (values.get(key) for key in ("number", "better", "digits"))
    if not isinstance(number, str):
        raise UserError(f"{place}: number={number!r}; write the name of an epoch's number, such as mmAP")
    if better not in (None, "up", "down"):
        raise UserError(f"{place}: better={better}; write up or down, or leave it out")
    if digits is not None and not (type(digits) is int and 0 <= digits <= MOST_DIGITS):
        raise UserError(
            f"{place}: digits={shown(digits)}; write how many follow the point, 0 to {MOST_DIGITS}, or leave it out"
        )
    found = re.fullmatch(r"(.*\S) \(([^()]+)\)", heading)
    name, unit = (found[1], found[2]) if found else (heading, "")
    is_score = number in SCORES
    return Measure(
        name, number, unit, better or ("up" if is_score else None), 1 if is_score and digits is None else digits
    )


def _row(row: Any, headings: list[str], place: str) -> tuple[RowSpec, Asked]:
    """A row, and the settings that its `ask` implies."""
    values = row if isinstance(row, dict) else {"ask": row}
    ask, paper = values.get("ask"), values.get("paper") or {}
    if not (ask is None or isinstance(ask, dict)) or not isinstance(paper, dict):
        raise UserError(f"{place}: cannot be read; write it as in {{ask: {{batch: 16}}, paper: {{mmAP: 37.0}}}}")
    _check(values, ("ask", "label", "paper", "note"), place)
    _check(paper, headings, f"{place}, paper")
    for heading, value in paper.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value != "failed" and not is_number:
            raise UserError(f"{place}, paper: {heading} is {shown(value)}; write a number, or failed")
    try:
        asked, implied = (None, {}) if ask is None else (asked_settings(ask), implied_settings(ask))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    label = ", ".join(f"{key} {value}" for key, value in (ask or {}).items())
    gpus = (ask or {}).get("gpus")
    note, gpus = str(values.get("note", "")), gpus if isinstance(gpus, int) else None
    return RowSpec(str(values.get("label", label)), asked, paper, gpus, note), implied


def _with_implied(rows: list[RowSpec], implied: list[Asked]) -> list[RowSpec]:
    """The rows, asking also for what is implied where that tells one row from another.

    Settings that all rows share are left out: the command line may have changed them for all.
    """
    keys = {key for each in implied for key in each if len({other.get(key) for other in implied}) > 1}
    return [
        row
        if row.asked is None
        else replace(
            row,
            asked={key: each[key] for key in keys & each.keys()} | row.asked,
            implied=tuple(sorted(keys & each.keys() - row.asked.keys())),
        )
        for row, each in zip(rows, implied, strict=True)
    ]


def _check(values: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    known = list(known)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            raise UserError(f"{place}: {key}: there is no such key; {way_out}")
