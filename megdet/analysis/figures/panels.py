"""Many rows in one figure: how they are split over readable panels, and the style of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from megdet.analysis.figures.style import LINES, line_style
from megdet.analysis.rows import RowKey, bn_label

MAX_CURVES = 7
"""Of one panel, before the rows are split by BN size: as many as there are colours."""
FEW = 4
"""Neighbouring BN sizes share a panel that has no more curves than this."""

Style = tuple[str, str, str]
"""Colour, marker and line."""


@dataclass(frozen=True)
class Panel:
    """Some rows, in order, each with its style."""

    title: str
    styles: dict[RowKey, Style]


def panels_of(keys: Sequence[RowKey]) -> list[Panel]:
    """One panel for up to MAX_CURVES rows; else one per BN size, small neighbours together.

    Where rows are split, a batch has its colour and marker in all panels; the line says schedule and lr.scale.
    """
    if len(keys) <= MAX_CURVES:
        return [Panel("", {key: line_style(place) for place, key in enumerate(keys)})]
    parts: list[list[RowKey]] = []
    for _, same in groupby(sorted(keys, key=_bn_size), _bn_size):
        part = list(same)
        if parts and _share_a_panel([*parts[-1], *part]):
            parts[-1] += part
        else:
            parts.append(part)
    styles = styles_by_batch(keys)
    return [Panel(_title(part), {key: styles[key] for key in keys if key in part}) for part in parts]


def styles_by_batch(keys: Iterable[RowKey]) -> dict[RowKey, Style]:
    """Colour and marker by batch, line by schedule and lr.scale: the BN size does not show.

    With more of these than there are lines, each has a style of its own.
    """
    keys = list(keys)
    batches = sorted({batch for batch, _, _, _ in keys})
    variants = sorted({_variant(key) for key in keys})
    if len(variants) > len(LINES):
        looks = sorted({(key[0], _variant(key)) for key in keys})
        return {key: line_style(looks.index((key[0], _variant(key)))) for key in keys}
    return {key: (*line_style(batches.index(key[0]))[:2], LINES[variants.index(_variant(key))]) for key in keys}


def _share_a_panel(keys: Sequence[RowKey]) -> bool:
    """Whether these rows are few enough, trained with BN, and have different styles."""
    looks = {(batch, schedule, scale) for batch, _, schedule, scale in keys}
    return len(looks) == len(keys) <= FEW and all(map(_bn_size, keys))


def _bn_size(key: RowKey) -> int:
    return key[1]


def _variant(key: RowKey) -> tuple[bool, str, float]:
    """The line style for schedule and lr.scale; `normal` at its full learning rate comes first."""
    return key[2] != "normal", key[2], -key[3]


def _title(keys: Sequence[RowKey]) -> str:
    sizes = sorted({bn_size for _, bn_size, _, _ in keys})
    return bn_label(sizes[0]) if len(sizes) == 1 else f"BN {', '.join(map(str, sizes))}"
