"""Settings as values: MLflow's params and plans have them as text, data frames as numbers where they are numbers."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

from megdet.errors import UserError
from megdet.planning.identity import settings_in

NOT_SET = "not set"


def setting_value(text: str) -> float | int | bool | str:
    """The number or truth value that a setting's text stands for, if `setting_text` gives the same text back."""
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    if setting_text(number) != text:
        return text
    return int(number) if number.is_integer() else number


def setting_text(value: Any) -> str:
    """A setting as `semantic_settings` writes it; `not set` where a run has no such setting."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return NOT_SET
    if value in (True, False) and "bool" in type(value).__name__:
        return "true" if value else "false"
    number = float(value)
    return str(int(number)) if number.is_integer() else json.dumps(number)


def canonical(text: str | None) -> str:
    """A setting's text as `setting_text` writes it: YAML reads 1e-4 as text."""
    try:
        return setting_text(None if text in (None, NOT_SET) else float(text or ""))
    except ValueError:
        return str(text)


def nested(key: str, value: Any) -> dict[str, Any]:
    """`{"lr": {"base": value}}` for `lr.base`."""
    *above, last = key.split(".")
    found = {last: value}
    for part in reversed(above):
        found = {part: found}
    return found


def asked_text(key: str, text: str) -> str:
    """The text that runs have for a setting of which the command line says `text`: 1e-3, [8,10], True, null."""
    try:
        return settings_in(nested(key, _read(yaml.safe_load(text)))).get(key, NOT_SET)
    except (yaml.YAMLError, UserError, TypeError, ValueError, RecursionError):
        return text


def _read(value: Any) -> Any:
    """A value as Hydra would have read it, of what YAML made of it: 1e-3 is a number."""
    if isinstance(value, list):
        return [_read(entry) for entry in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def typed(texts: pd.Series) -> pd.Series:
    """A column of settings as numbers or truth values if all of it are, else as the texts; missing stays missing."""
    values = {text: setting_value(text) for text in texts.dropna().unique()}
    kinds = {"number" if type(value) in (int, float) else type(value).__name__ for value in values.values()}
    return texts.map(values) if kinds in ({"number"}, {"bool"}) else texts


def numbers_in(text: str) -> list[float]:
    """The numbers of a setting that is a list of them: `[8, 10]`."""
    return [float(number) for number in text.strip("[]").split(",") if number.strip()]
