"""Numbers of things, as people write them."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """`1 step`, `2 steps`; `several` where it is not `one` with an s: `2 boxes`."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"
