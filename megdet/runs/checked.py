"""Dataclasses from JSON, with every value of the kind that its field says: a file that was damaged is refused, and
nothing that it holds gets further."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def checked(cls: type[T], values: Any) -> T:
    """A dataclass of the values of a JSON object. Fields are texts, numbers, booleans, StrEnums, None, tuples of one
    kind, or mappings to one kind.

    Raises ValueError where a value is missing, of another kind, or of a name that the dataclass has not.
    """
    if not isinstance(values, Mapping):
        raise ValueError("it holds no object")
    hashable: Any = cls
    kinds, needed = _fields(hashable)
    if unknown := values.keys() - kinds.keys():
        raise ValueError(f"it has {min(unknown)!r:.40}, which is not known")
    if missing := needed - values.keys():
        raise ValueError(f"it lacks {min(missing)!r}")
    return cls(**{name: _value(kinds[name], value, name) for name, value in values.items()})


@cache
def _fields(cls: type[Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The kinds of a dataclass's fields, and the names of those without a default."""
    hints = get_type_hints(cls)
    kinds = {field.name: hints[field.name] for field in fields(cls)}
    needed = [one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING]
    return kinds, frozenset(needed)


def _value(kind: Any, value: Any, name: str) -> Any:
    for one in get_args(kind) if get_origin(kind) is UnionType else (kind,):
        origin, inner = get_origin(one), get_args(one)
        if origin is tuple and isinstance(value, list):
            return tuple(_value(inner[0], item, name) for item in value)
        if origin is Mapping and isinstance(value, dict):
            return {key: _value(inner[1], item, name) for key, item in value.items()}
        if origin is None and issubclass(one, StrEnum) and value in list(one):
            return one(value)
        if one is float and (type(value) is int or (type(value) is float and math.isfinite(value))):
            return value
        if one in (int, str, bool, NoneType) and type(value) is one:
            return value
    raise ValueError(f"{name!r} is {value!r:.40}, which it cannot be")
