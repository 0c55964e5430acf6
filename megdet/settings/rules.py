"""Settings that check themselves: every field carries a rule, and a mistake is one message with the field's key.

    @dataclass
    class Anchors(Settings):
        sizes: list[int] = setting([32, 64], Each(Whole(least=1)))

A field that may be null says so by its type (`int | None`, or `Any`). Standard library only, so that planning stays
instant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

from megdet.errors import UserError

T = TypeVar("T")
RULE, WHY = "rule", "why"
"""Keys of a field's metadata."""
MOST = 2**31 - 1
"""What a whole number may be where its rule sets no limit. Ids compare numbers as floats, exact up to 2^53."""
LARGEST = 1e12
"""The same of other numbers: products of a few of them stay finite."""
MOST_DIGITS = 60
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Rule(Protocol):
    """What a value may be."""

    def instead_of(self, value: object) -> str | None:
        """What to use instead of `value` ("a whole number of at least 1"), or None where it is fine."""


def setting(default: T, rule: Rule, *, why: str = "") -> T:
    """A dataclass field with a default and a rule. A list or mapping is copied for each instance.

    `why` the rule is what it is goes into the message, where a user may wonder.
    """
    metadata = {RULE: rule, WHY: why}
    if isinstance(default, list | dict):
        made: Any = field(default_factory=lambda: type(default)(default), metadata=metadata)
    else:
        made = field(default=default, metadata=metadata)
    return made  # type: ignore[no-any-return]


@dataclass
class Settings:
    """What a user may set of one component; fields are values with a rule, or further settings."""

    def check(self, prefix: str = "") -> None:
        """Raise UserError for the first value that makes no sense; `prefix` is the key of these settings, with a dot.

        Hydra has checked most types already; `~key` and callers from Python get past it.
        """
        for declared, hint in _declared(type(self)):  # type: ignore[arg-type]  # classes can be hashed
            key, value = prefix + declared.name, getattr(self, declared.name)
            if isinstance(hint, type) and issubclass(hint, Settings):
                if not isinstance(value, hint):
                    raise UserError(f"{key}={shown(value)}: use its keys, such as {key}.{fields(hint)[0].name}")
                value.check(f"{key}.")
                continue
            instead = _instead(declared, hint, value)
            if instead:
                raise UserError(f"{key}={shown(value)}: {instead}")
        self.check_together(prefix)

    def changed(self) -> str | None:
        """The first of its values that is not its default; None where all are."""
        usual = type(self)()
        return next((one.name for one in fields(self) if getattr(self, one.name) != getattr(usual, one.name)), None)

    def check_together(self, prefix: str) -> None:
        """Raise UserError where values that make sense alone do not together."""


@cache
def _declared(settings: type[Settings]) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(settings)
    return [(declared, hints[declared.name]) for declared in fields(settings)]


def rule_at(settings: type[Settings], key: str) -> Rule | None:
    """The rule of the setting `key` (with dots, below `settings`); None where there is no such setting."""
    found = _field_at(settings, key)
    rule: Rule | None = found[0].metadata[RULE] if found else None
    return rule


def way_out(settings: type[Settings], key: str, value: object) -> str | None:
    """`use ...`: what the setting `key` may be instead of `value`; None where that is fine, or no rule says."""
    found = _field_at(settings, key)
    return _instead(*found, value) if found else None


def _field_at(settings: type[Settings], key: str) -> tuple[Field[Any], Any] | None:
    """The field of a value, not of further settings, and its type."""
    name, _, inner = key.partition(".")
    for declared, hint in _declared(settings):  # type: ignore[arg-type]  # classes can be hashed
        if declared.name == name:
            if isinstance(hint, type) and issubclass(hint, Settings):
                return _field_at(hint, inner)
            return None if inner else (declared, hint)
    return None


def _instead(declared: Field[Any], hint: Any, value: object) -> str | None:
    """`use ...`: what to use instead of a value that breaks its field's rule; else None."""
    may_be_null = type(None) in get_args(hint)
    if value is None and (may_be_null or hint is Any):
        return None
    instead = declared.metadata[RULE].instead_of(value)
    if not instead:
        return None
    why = f" ({declared.metadata[WHY]})" if declared.metadata[WHY] else ""
    return f"use {instead}{', or null' if may_be_null else ''}{why}"


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    least: int = 0
    most: int = MOST
    or_auto: bool = False

    def instead_of(self, value: object) -> str | None:
        if self.or_auto and value == "auto":
            return None
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and self.least <= value <= self.most:  # type: ignore[operator]
            return None
        if self.most < MOST:
            span = f"from {self.least} to {self.most}"
        elif is_whole and value > self.most:  # type: ignore[operator]
            span = f"of at most {self.most}"
        else:
            span = f"of at least {self.least}"
        return f"a whole number {span}{', or auto' if self.or_auto else ''}"


@dataclass(frozen=True)
class Number:
    """A finite number of at least `least`, or above `above`."""

    least: float = 0.0
    above: float | None = None
    most: float = LARGEST

    def instead_of(self, value: object) -> str | None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return f"a number {self._span}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"a finite number {self._span}"
        if value > self.most:
            return f"a number of at most {self.most:g}" if self.most == LARGEST else f"a number {self._span}"
        enough = value > self.above if self.above is not None else value >= self.least
        return None if enough else f"a number {self._span}"

    @property
    def _span(self) -> str:
        if self.above is not None:
            return f"above {self.above:g}" + (f" and at most {self.most:g}" if self.most < LARGEST else "")
        return f"from {self.least:g} to {self.most:g}" if self.most < LARGEST else f"of at least {self.least:g}"


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    choices: tuple[str | bool, ...]

    def instead_of(self, value: object) -> str | None:
        if any(type(value) is type(choice) and value == choice for choice in self.choices):
            return None
        return f"one of {', '.join(map(shown, self.choices))}"


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def instead_of(self, value: object) -> str | None:
        return None if isinstance(value, bool) else "true or false"


@dataclass(frozen=True)
class Name:
    """What may be part of a file's name."""

    most: int = 64

    def instead_of(self, value: object) -> str | None:
        if isinstance(value, str) and NAME.fullmatch(value) and len(value) <= self.most:
            return None
        return f"a name of at most {self.most} letters, digits and _ . - that begins with a letter, digit or _"


@dataclass(frozen=True)
class Text:
    """A line of text, or several where that is allowed."""

    many_lines: bool = False

    def instead_of(self, value: object) -> str | None:
        if isinstance(value, str) and value.strip():
            lines = value.replace("\t", " ").splitlines() if self.many_lines else [value]
            if all(line.isprintable() for line in lines):
                return None
        return "printable text" if self.many_lines else "one line of text"


@dataclass(frozen=True)
class Each:
    """A list whose entries obey a rule."""

    rule: Rule
    least: int = 0
    """Entries."""

    def instead_of(self, value: object) -> str | None:
        if not isinstance(value, list):
            return "a list"
        if len(value) < self.least:
            return f"a list of at least {self.least}"
        for entry in value:
            instead = self.rule.instead_of(entry)
            if instead:
                return f"a list whose every entry is {instead}"
        return None


@dataclass(frozen=True)
class TextByName:
    """A mapping from names to lines of text."""

    def instead_of(self, value: object) -> str | None:
        if not isinstance(value, Mapping):
            return "a mapping such as {name: text}"
        for name, text in value.items():
            instead = Name().instead_of(name) or Text().instead_of(text)
            if instead:
                return f"a mapping of names to texts; {shown(name)} and {shown(text)} are not {instead}"
        return None


def shown(value: object) -> str:
    """A value as YAML would have it, shortened: `true`, `null`, `[8, 10]`."""
    if isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        text = str(int(value))
    elif isinstance(value, int) and value.bit_length() > 4 * MOST_DIGITS:
        text = f"a number of {value.bit_length()} bits"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{shown(name)}: {shown(entry)}" for name, entry in value.items()) + "}"
    elif isinstance(value, str) and value.isprintable() and value.strip() == value != "":
        text = value
    else:
        text = repr(value)
    return text if len(text) <= 2 * MOST_DIGITS else f"{text[: 2 * MOST_DIGITS]}..."
