"""Where a study looks: Hydra's `interval()`, `range()`, `choice()` and lists as ranges of numbers or choices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from megdet.config.swept_values import at_least, refuse_doubles
from megdet.errors import UserError

LOG = "log"
"""The tag of an interval in which equal factors are equally likely."""


@dataclass(frozen=True)
class NumberRange:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    step: float | None
    """Between two neighbours; None: whatever lies between."""
    whole: bool
    """Whole numbers only."""
    log: bool
    """Whether equal factors, not equal differences, are equally likely."""


@dataclass(frozen=True)
class Choices:
    """Values as they are written on the command line, in no order."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class SearchSpace:
    """What a study varies, and what it leaves as it is."""

    varied: Mapping[str, NumberRange | Choices]
    """By key."""
    fixed: tuple[str, ...]
    """Overrides as they were written."""


def search_space(arguments: Sequence[str], loader: ConfigLoader, *, ranges: Mapping[str, str]) -> SearchSpace:
    """The space that overrides describe, and `ranges` for the keys that they do not name.

    Raises UserError where that leaves nothing to look for.
    """
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides(list(arguments))
    given = {override.key_or_group for override in overrides}
    overrides += parser.parse_overrides([f"{key}={values}" for key, values in ranges.items() if key not in given])
    refuse_doubles(overrides)
    varied = {o.get_key_element(): _values(o) for o in overrides if o.is_sweep_override()}
    if not varied:
        raise UserError(
            "hydra/sweeper=optuna has nothing to look for: give a setting a range, such as "
            "'lr.base=tag(log, interval(0.005, 0.05))'"
        )
    return SearchSpace(varied, tuple(str(o.input_line) for o in overrides if not o.is_sweep_override()))


def _values(override: Override) -> NumberRange | Choices:
    if unknown := sorted(getattr(override.value(), "tags", set()) - {LOG}):
        raise UserError(f"{override.input_line}: tag({unknown[0]}, ...) means nothing to a study; use tag({LOG}, ...)")
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep) and interval.start is not None and interval.end is not None
        low, high = interval.start, interval.end
        if low > high:
            raise UserError(f"{override.input_line}: the range ends below its beginning")
        if LOG in interval.tags and low <= 0:
            raise UserError(f"{override.input_line}: a range in factors (log) has to begin above 0")
        return NumberRange(
            low, high, step=None, whole=isinstance(low, int) and isinstance(high, int), log=LOG in interval.tags
        )
    if override.is_range_sweep():
        spread = override.value()
        assert isinstance(spread, RangeSweep)
        at_least(override)  # which says what is wrong with a step of 0
        numbers: list[float] = sorted(cast(Iterator[float], override.sweep_iterator()))
        if not numbers:
            raise UserError(f"{override.input_line}: the range is empty")
        whole = all(isinstance(number, int) for number in numbers)
        return NumberRange(numbers[0], numbers[-1], step=abs(spread.step or 1), whole=whole, log=False)
    return Choices(tuple(override.sweep_string_iterator()))
