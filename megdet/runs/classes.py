"""The classes that a run learns, kept in its folder: who uses its detector needs no training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megdet.runs.checked import checked


@dataclass(frozen=True)
class Classes:
    """Label l of the detector, 1..k, is the class at place l - 1."""

    ids: tuple[int, ...]
    """In the annotation file, ascending."""
    names: tuple[str, ...]

    @classmethod
    def of(cls, ids: Sequence[int], names: Sequence[str]) -> Classes:
        return cls(tuple(ids), tuple(names))

    def to_json(self) -> dict[str, Any]:
        """As COCO's annotation files have them."""
        return {"categories": [{"id": number, "name": name} for number, name in zip(self.ids, self.names, strict=True)]}

    @classmethod
    def from_json(cls, values: Any) -> Classes:
        """Raises ValueError, TypeError or KeyError where `values` are no classes."""
        categories = [checked(_Category, one) for one in values["categories"]]
        return cls(tuple(one.id for one in categories), tuple(one.name for one in categories))


@dataclass(frozen=True)
class _Category:
    id: int
    name: str
