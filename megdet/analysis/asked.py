"""Which runs are those that a row of a sweep file asks for: by the settings that it asks for, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import pandas as pd

from megdet.analysis.frames import RunFrames
from megdet.analysis.setting_values import setting_text
from megdet.config.schema import Config
from megdet.planning.identity import semantic_settings

Asked = dict[str, str | None]
"""Settings as text; None: not set."""
SEED = "seed"


def asked_settings(ask: Mapping[str, Any]) -> Asked:
    """What a row's `ask` names of the result; what says only where it runs (gpus, cluster, ...) is left out."""
    found: Asked = {}
    for key in _of_the_schema(ask):
        found |= _semantic(key, ask[key])
    if isinstance(ask.get(SEED), int):
        found[SEED] = str(ask[SEED])
    return found


def implied_settings(ask: Mapping[str, Any]) -> Asked:
    """What else an `ask` changes that chooses a file of conf/, such as `experiment: demo`.

    Raises UserError where Hydra does not know the choice.
    """
    plain = _of_the_schema(ask)
    if len(plain) == len(ask):
        return {}
    from megdet.config.compose import compose  # loads Hydra

    without, whole = (_settings(compose([_override(key, ask[key]) for key in keys])) for keys in (plain, ask))
    return {key: whole.get(key) for key in without.keys() | whole.keys() if without.get(key) != whole.get(key)}


def usual_values(frames: RunFrames, rows: Sequence[Asked], keys: Sequence[str]) -> Asked:
    """What a row is taken to ask for where it leaves out a setting that others of its file ask for.

    The default; where no run has that, what most runs have that no row asks for.
    """
    usual: dict[str, str | None] = {}
    for key in keys:
        default = default_settings().get(key)
        usual[key] = default
        if key in frames.runs and not _has(frames.runs[key], default).any():
            asked = {canonical(row[key]) for row in rows if key in row}
            others = [text for text in frames.runs[key].map(setting_text) if text not in asked]
            usual[key] = max(sorted(set(others)), key=others.count) if others else default
    return usual


def matching(frames: RunFrames, asked: Asked, usual: Asked) -> pd.Series:
    """True for the runs that have what is asked, and what is usual where nothing is asked."""
    chosen = pd.Series(True, frames.runs.index)
    for key, text in {**usual, **asked}.items():
        column = frames.runs[key] if key in frames.runs else pd.Series(None, frames.runs.index, dtype=object)
        chosen &= _has(column, text)
    return chosen


@cache
def default_settings() -> Mapping[str, str]:
    """The settings of the paper's experiment: the schema's defaults."""
    return _settings(Config())


def canonical(text: str | None) -> str:
    """A setting's text, as `setting_text` would write it: YAML reads 1e-4 as text."""
    try:
        return setting_text(None if text is None else float(text))
    except ValueError:
        return str(text)


def _has(column: pd.Series, text: str | None) -> pd.Series:
    return column.map(setting_text).isin([canonical(text), *([text] if text else [])])


def _settings(config: Config) -> dict[str, str]:
    return semantic_settings({"config": asdict(config)})


def _of_the_schema(ask: Mapping[str, Any]) -> list[str]:
    """The keys that the schema has: `lr.scale`, or a part of it as `model`."""
    return [key for key in ask if key in _schema()]


@cache
def _schema() -> frozenset[str]:
    return frozenset(_keys(asdict(Config()), ""))


def _keys(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _semantic(key: str, value: Any) -> dict[str, str | None]:
    """One thing that is asked for, as settings; empty where it does not decide the result."""
    nested: Any = "" if value is None else value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    settings = semantic_settings({"config": nested})
    return {name: None if value is None else text for name, text in settings.items()}


def _override(key: str, value: Any) -> str:
    """As on the command line."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
