"""Which runs belong to a row of a sweep file: those with the settings that the row asks for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import pandas as pd

from megdet.analysis.run_frames import RunFrames
from megdet.analysis.setting_values import canonical, nested, setting_text
from megdet.config.schema import Config
from megdet.planning.identity import RECIPE, semantic_settings, settings_in

Asked = dict[str, str | None]
"""Settings as text; None: not set."""
SEED = "seed"


def asked_settings(ask: Mapping[str, Any]) -> Asked:
    """The settings in a row's `ask` that decide the result; those on hardware (gpus, cluster, ...) are left out."""
    found: Asked = {}
    for key in _of_the_schema(ask):
        found |= _semantic(key, ask[key])
    if isinstance(ask.get(SEED), int):
        found[SEED] = str(ask[SEED])
    return found


def implied_settings(ask: Mapping[str, Any]) -> Asked:
    """What an `ask` changes through files of conf/ that it chooses, such as `experiment: demo`.

    Raises UserError where Hydra does not know the choice.
    """
    plain = _of_the_schema(ask)
    if len(plain) == len(ask):
        return {}
    from megdet.config.compose import compose  # loads Hydra

    without, whole = (_settings(compose([_override(key, ask[key]) for key in keys])) for keys in (plain, ask))
    return {key: whole.get(key) for key in without.keys() | whole.keys() if without.get(key) != whole.get(key)}


def runs_of_rows(
    frames: RunFrames, rows: Sequence[Asked | None], varied: Iterable[str], implied: Iterable[str] = ()
) -> list[pd.DataFrame]:
    """The runs that match each row, by seed; none for a row without an `ask` (None).

    A row that leaves out one of the `varied` settings, which others ask for, asks for its usual value: the default;
    where no run has that, what most runs have that no row asks for; of a setting that is only `implied` by a
    chosen file, or else what most have.
    """
    runs = frames.runs.sort_values(["seed", "run_id"])
    keys = [key for key in dict.fromkeys(key for row in rows for key in (*varied, *(row or ()))) if key != SEED]
    texts = runs.reindex(columns=keys).map(lambda value: canonical(setting_text(value)))
    chosen = set(implied)
    usual = {
        key: _usual(key, Counter(texts[key]), [row[key] for row in rows if row and key in row and key not in chosen])
        for key in keys
    }
    places: dict[tuple[str, ...], list[int]] = {}
    for place, own in enumerate(texts.itertuples(index=False, name=None)):
        places.setdefault(own, []).append(place)
    found = []
    for row in rows:
        wanted = tuple(canonical(row[key]) if key in row else usual[key] for key in keys) if row is not None else ()
        of_row = runs.iloc[[] if row is None else places.get(wanted, [])]
        found.append(of_row[of_row[SEED] == int(row[SEED] or 0)] if row and SEED in row else of_row)
    return found


def _usual(key: str, there: Counter[str], asked: Sequence[str | None]) -> str:
    default = canonical(default_settings().get(key))
    others = sorted(there.keys() - set(map(canonical, asked)))
    return max(others, key=lambda text: there[text]) if others and default not in there else default


@cache
def default_settings() -> Mapping[str, str]:
    """The settings of the paper's experiment: the schema's defaults."""
    return _settings(Config())


def _settings(config: Config) -> dict[str, str]:
    return semantic_settings({"config": asdict(config), "recipe": RECIPE})


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
    settings = settings_in(nested(key, "" if value is None else value))
    return {name: None if value is None else text for name, text in settings.items()}


def _override(key: str, value: Any) -> str:
    """As on the command line."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
