"""A kind of table: how it is made, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from megdet.analysis.comparable import Group
from megdet.analysis.rows import KEY
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.table import Table


@dataclass(frozen=True)
class Recipe:
    """How one kind of table is made."""

    name: str
    """What `--table` calls it."""
    make: Callable[[Group | None], Table | None]
    """The table of a group of comparable runs; None where they have nothing to show in it. Without a group: what it
    shows before any run, the paper's numbers or None."""
    epochs: tuple[str, ...] = ()
    """The numbers that it needs of every epoch, not only after the last one."""
    varied: tuple[str, ...] = KEY
    """The settings in which the runs of one table may differ."""
    is_of_the_paper: bool = False
    """Whether it is made where no table is asked for by name."""
    missing: Callable[[RunFrames], str] | None = None
    """What to say where no run has anything for it."""
