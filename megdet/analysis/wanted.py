"""Which runs are wanted, in the words of a launch: `experiment=demo seed=0,1 lr.base=0.04`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from megdet.analysis.run_frames import FACTS, RunFrames
from megdet.analysis.setting_values import NOT_SET, asked_text, canonical, setting_text, setting_value
from megdet.errors import UserError
from megdet.settings.counted import listed

SHOWN = 12
"""Values that a message lists; more are counted."""
Wanted = Mapping[str, str]
"""By key, the values that runs are chosen by: one, or several with commas."""
BETWEEN_VALUES = re.compile(r",(?![^\[]*\])")
"""A comma, but none of a list: [8,10] is one value."""


def select(frames: RunFrames, /, **wanted: Any) -> RunFrames:
    """The runs with the wanted sweep, experiment, seed, ..., each once: with one of several values that are given.

    Keys are those of `RunFrames.texts`. A value is text as on the command line (`0,1`, `null`), or a number, truth
    value or None; several are a list, a tuple or the like. If MLflow has a run in several experiments, the newest
    counts. UserError for a value that no run has.
    """
    for key, values in wanted.items():
        chosen = pd.Series(False, frames.runs.index)
        for text in _several(frames, key, values):
            found = having(frames, key, text)
            if not found.any():
                raise UserError(f"{key}={text}: no such run; {there(frames, key)}")
            chosen |= found
        frames = frames.where(chosen)
    return frames.where(~frames.runs["run_id"].duplicated())


def _several(frames: RunFrames, key: str, values: Any) -> list[str]:
    if isinstance(values, str):
        # A sweep or an experiment may have commas in its name.
        return [values] if having(frames, key, values).any() else BETWEEN_VALUES.split(values)
    if not isinstance(values, Iterable):
        return [_text(values)]
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    """A value of Python as the command line would have it."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    return json.dumps(list(value)) if is_list else setting_text(value)


def _by_size(text: str) -> tuple[bool, float, str]:
    """Numbers by their size, then the rest by the alphabet."""
    value = setting_value(text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number, float(value) if is_number else 0.0, text


def having(frames: RunFrames, key: str, value: str) -> pd.Series:
    """Which runs have this value under `key`, as `texts` has keys.

    Of a commit the first characters are enough, of a sweep's name the rows or the experiment in it.
    """
    alike = {value, canonical(value)}
    if key in frames.settings:
        alike.add(asked_text(key, value))

    def has(text: str) -> bool:
        begins = key == "commit" and value != "" and text.startswith(value)
        return text in alike or begins or (key == "sweep" and "=" not in value and value in text.split())

    return frames.texts(key).map(lambda own: any(map(has, own))).astype(bool)


def there(frames: RunFrames, key: str) -> str:
    """What the runs have under `key`, or which keys they have, for a message to who asked for something else."""
    values = sorted(set().union(*frames.texts(key)), key=_by_size)
    if values:
        return f"there is {key}={listed(['null' if value == NOT_SET else value for value in values], SHOWN)}"
    tags = [column.removeprefix("tags.") for column in frames.runs if column.startswith("tags.")]
    keys = ["sweep", *FACTS, *sorted({*frames.settings, *tags})]
    if key in keys:
        return f"no run has a {key}"
    near = difflib.get_close_matches(key, keys, n=1)
    return f"no run has {key}" + (f"; did you mean {near[0]}?" if near else f"; there is {listed(keys, SHOWN)}")
