"""Settings as values: MLflow's params and plans have them as text, data frames as numbers where they are numbers."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import yaml  # type: ignore[import-untyped]

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
    """A setting's text, or what stands for it on a command line, as `setting_text` writes it: 1e-4, [8,10]."""
    if text and text.startswith("["):
        try:
            return json.dumps(yaml.safe_load(text))
        except (yaml.YAMLError, TypeError):
            return text
    try:
        return setting_text(None if text in (None, NOT_SET) else float(text or ""))
    except ValueError:
        return str(text)


def typed(texts: pd.Series) -> pd.Series:
    """A column of settings as numbers or truth values if all of it are, else as the texts; missing stays missing."""
    values = {text: setting_value(text) for text in texts.dropna().unique()}
    kinds = {"number" if type(value) in (int, float) else type(value).__name__ for value in values.values()}
    return texts.map(values) if kinds in ({"number"}, {"bool"}) else texts


def numbers_in(text: str) -> list[float]:
    """The numbers of a setting that is a list of them: `[8, 10]`."""
    return [float(number) for number in text.strip("[]").split(",") if number.strip()]
