"""The training loss over epochs, with a cross where training diverged."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.style import (
    curve_label,
    dress,
    entitle,
    legend_below,
    line_style,
    mark_drops,
    new_figure,
    over_epochs,
    rows_of,
)
from analysis.runs import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "loss"
MAX_POINTS = 100
"""Of a curve; each is the mean of the logged steps around it."""


def draw(group: Group) -> Figure | None:
    """One curve per run, seeds of a row alike; None without a logged step."""
    figure = new_figure(7, 4.6)
    axes = figure.subplots()
    drawn = False
    for place, (key, runs) in enumerate(rows_of(group.runs).items()):
        colour, marker, line = line_style(place)
        diverged = sum(run.state == "diverged" for run in runs)
        label = curve_label(key) + (f" ({diverged} of {len(runs)} diverged)" if diverged else "")
        for run in runs:
            points = smoothed(run.steps)
            if not points:
                continue
            x, y = [epoch for epoch, _ in points], [loss for _, loss in points]
            axes.plot(
                x, y, color=colour, linestyle=line, linewidth=1.2, marker=marker, markersize=4,
                markevery=(place / 20, 0.15), label=label,
            )  # fmt: skip
            if run.state == "diverged":
                axes.plot(x[-1:], y[-1:], color=colour, marker="x", markersize=11, markeredgewidth=2.5)
            drawn, label = True, "_nolegend_"
    if not drawn:
        return None
    mark_drops(axes, group.runs)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")  # less than a decade has few labels
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set(ylabel="training loss")
    over_epochs(axes)
    dress(axes)
    legend_below(figure, axes)
    entitle(figure, "Training loss; a cross: training diverged", group)
    return figure


def smoothed(steps: tuple[Numbers, ...]) -> list[tuple[float, float]]:
    """Epoch and loss of the logged steps whose loss is finite, averaged down to MAX_POINTS."""
    pairs = [(line.get("epoch"), line.get("loss")) for line in steps]
    points = [(epoch, loss) for epoch, loss in pairs if epoch is not None and loss is not None]
    width = max(1, -(-len(points) // MAX_POINTS))
    parts = [points[first : first + width] for first in range(0, len(points), width)]
    return [(part[-1][0], fmean(loss for _, loss in part)) for part in parts]
