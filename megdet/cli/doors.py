"""Subcommands that are programs of their own: all their arguments go there untouched, `--help` among them.

Each is imported when it is asked for, so that `megdet status` loads no Hydra and no matplotlib.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Door:
    """One subcommand."""

    summary: str
    run: Callable[[Sequence[str]], int]
    """From its arguments to the exit code."""


def _launch(arguments: Sequence[str]) -> int:
    from megdet.launch import main

    return main(arguments, command="megdet launch")


def _data(arguments: Sequence[str]) -> int:
    from megdet.cli.data import main

    return main(arguments)


def _tables(arguments: Sequence[str]) -> int:
    from megdet.analysis.make_tables import main

    return main(arguments, command="megdet tables")


def _figures(arguments: Sequence[str]) -> int:
    from megdet.analysis.make_figures import main

    return main(arguments, command="megdet figures")


def _report(arguments: Sequence[str]) -> int:
    from megdet.analysis.make_report import main

    return main(arguments, command="megdet report")


DOORS = {
    "launch": Door("plan an experiment, or a sweep (-m), and run it", _launch),
    "data": Door("look into a data set before you train on it: counts, repairs, unusable images", _data),
    "tables": Door("the paper's tables of your runs, beside the paper's numbers", _tables),
    "figures": Door("the paper's figures of your runs", _figures),
    "report": Door("one HTML page of a sweep, or of all runs", _report),
}


def complete(arguments: Sequence[str], commands: Iterable[str]) -> int:
    """Answer the shell, which asks on Tab what may follow, once `eval "$(megdet launch -sc install=bash)"` was done.

    Hydra answers about `megdet launch`; otherwise the answer is the names of all `commands`.
    """
    words = os.environ["COMP_LINE"].split(maxsplit=2)
    if words[1:2] == ["launch"]:
        os.environ["COMP_LINE"] = " ".join(["megdet", *words[2:]]) + " " * (len(words) == 2)
        return DOORS["launch"].run(arguments)
    print(*commands)
    return 0
