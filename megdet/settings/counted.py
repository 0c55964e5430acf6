"""Numbers of things and lists of names, as people write them."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int | str, one: str, several: str = "") -> str:
    """`1 step`, `2 steps`; `several` where it is not `one` with an s: `2 boxes`. `number` may be text."""
    return f"{number} {one if str(number) == '1' else several or f'{one}s'}"


def listed(names: Sequence[str], most: int) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
