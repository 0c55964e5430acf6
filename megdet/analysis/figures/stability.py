"""Where training begins to diverge: a line for each experiment over the learning rate, with all that was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megdet.analysis.figures.style import COLOURS, OURS, dress, legend_below, log_scale, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIVERGED = COLOURS[1]


@dataclass(frozen=True)
class TriedRates:
    """The learning rates of one experiment that were tried."""

    label: str
    asked: float
    """The learning rate that it has by itself."""
    stable: Sequence[float]
    diverged: Sequence[float]


def draw(rows: Sequence[TriedRates], title: str) -> Figure:
    """The first row at the top; a line up to the largest stable rate, and a broken one from the first that diverges."""
    figure = new_figure(7, 1.6 + 0.42 * len(rows))
    axes = figure.subplots()
    every = [rate for row in rows for rate in (*row.stable, *row.diverged, row.asked)]
    low, high = min(every) / 1.5, max(every) * 1.5
    for place, row in enumerate(rows):
        if row.stable:
            axes.plot([low, max(row.stable)], [place, place], color=OURS, linewidth=2, solid_capstyle="butt")
        if row.diverged:
            axes.plot([min(row.diverged), high], [place, place], color=DIVERGED, linewidth=1.4, linestyle=":")
        for rates, colour, marker, label in (
            (row.stable, OURS, "o", "stable"),
            (row.diverged, DIVERGED, "x", "diverged"),
        ):
            axes.plot(rates, [place] * len(rates), color=colour, marker=marker, linestyle="", label=label)
        axes.plot([row.asked], [place], color="0.2", marker="|", markersize=16, linestyle="", label="as asked")
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel="learning rate after the warm-up")
    log_scale(axes, "x")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    dress(axes)
    legend_below(figure, axes)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure
