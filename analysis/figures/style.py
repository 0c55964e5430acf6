"""What all figures share: colours and marks that survive grey print and colour blindness, sizes, axes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.paper import RowKey, key_of, label_of
from analysis.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print."""
MARKERS = "osD^vP*"
LINES = ("-", "--", ":", "-.")
"""Told apart by marker as well as colour; the next seven curves by line style, with the markers moved on by one."""
OURS, PAPER = COLOURS[0], "#B0B0B0"
"""Of bars and points; the paper's are also hatched or hollow."""


def line_style(place: int) -> tuple[str, str, str]:
    """Colour, marker and line of the curve at `place`: 28 that differ."""
    return COLOURS[place % 7], MARKERS[(place + place // 7) % 7], LINES[place // 7 % len(LINES)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; pyplot is not used: no display and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def dress(*all_axes: Axes) -> None:
    """Grid and frame alike on all axes."""
    for axes in all_axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def over_epochs(axes: Axes) -> None:
    """Epochs along the x axis: whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def entitle(figure: Figure, title: str, group: Group) -> None:
    """What the figure shows, and of which runs."""
    figure.suptitle("\n".join([title, *textwrap.wrap(group.title, int(14.5 * figure.get_figwidth()))]), fontsize=9)


def legend_below(figure: Figure, axes: Axes) -> None:
    """One legend under the figure, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(len(labels), int(figure.get_figwidth() / (0.55 + 0.075 * max(map(len, labels))))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def mark_drops(axes: Axes, runs: Iterable[RunRecord]) -> None:
    """Dashed lines where the learning rate drops, over epochs."""
    for epoch in sorted({epoch for run in runs for epoch in run.milestones}):
        axes.axvline(epoch, color="0.6", linewidth=0.9, linestyle="--", zorder=0)


def rows_of(runs: Sequence[RunRecord]) -> dict[RowKey, list[RunRecord]]:
    """The runs by row (batch, bn_size, schedule, lr.scale), in a figure's order: the normal schedule first."""
    rows: dict[RowKey, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: (run.schedule != "normal", key_of(run), run.seed)):
        rows.setdefault(key_of(run), []).append(run)
    return rows


def curve_label(key: RowKey) -> str:
    """A row's name where its BN size is not in a column beside."""
    return f"{label_of(key)}, " + (f"BN {key[1]}" if key[1] else "frozen BN")
