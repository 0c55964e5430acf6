"""The values that a sweep gives its keys: each key once, and not too many points."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hydra.core.override_parser.types import Override, RangeSweep

from megdet.config.compose import reading
from megdet.errors import UserError

MOST_POINTS = 100_000
"""Of a sweep."""


def refuse_doubles(overrides: Sequence[Override]) -> None:
    """Raises UserError where a key that is swept is set once more: one of the two would be dropped."""
    for override in (o for o in overrides if o.is_sweep_override()):
        again = [o for o in overrides if o is not override and o.key_or_group == override.key_or_group]
        if again:
            raise UserError(
                f"{override.input_line} and {again[0].input_line} both set {override.key_or_group}; keep one of them"
            )


def values_of(swept: Sequence[Override]) -> list[list[str]]:
    """For each swept key its single overrides. Raises UserError where there is none, or the points are too many."""
    values = []
    for override in swept:
        found = []
        if (least := at_least(override)) <= MOST_POINTS:
            with reading([str(override.input_line)]):
                found = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            least = len(found)
        if not least:
            raise UserError(f"{override.input_line}: a sweep without a value; give at least one")
        values.append(found)
        points = math.prod(map(len, values[:-1])) * least
        if points > MOST_POINTS:
            raise UserError(
                f"{override.input_line}: that makes {points:,.6g} points or more, and a sweep has {MOST_POINTS:,} at "
                "most; ask for fewer values"
            )
    return values


def at_least(override: Override) -> float:
    """How many values a range() has, which could be endless; 0 where others are to be counted."""
    swept = override.value()
    if not isinstance(swept, RangeSweep):
        return 0
    if not swept.step or any(not math.isfinite(bound) for bound in (swept.start or 0, swept.stop or 0, swept.step)):
        raise UserError(f"{override.input_line}: a range() needs finite bounds and a step other than 0")
    return max(0.0, ((swept.stop or 0) - (swept.start or 0)) / swept.step)
