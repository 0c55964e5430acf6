"""The training loss over epochs, with a cross where training diverged."""

from __future__ import annotations

from itertools import count
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import Style, panels_of
from megdet.analysis.figures.style import (
    dress,
    entitle,
    legend_below,
    legend_beside,
    mark_drops,
    new_figure,
    over_epochs,
    panel_height,
    seeds_label,
)
from megdet.analysis.paper import row_name
from megdet.analysis.runs import Numbers, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "loss"
MAX_POINTS = 50
"""Of a whole training's curve; each is the mean of the logged steps before it."""
HEADROOM = 2.0
"""The axis ends at so many times the highest loss of the runs that did not diverge: a divergence goes out of sight."""

APART = 0.1
"""Of the axis' height, between crosses at the left edge of a panel."""

Curve = list[tuple[float, float]]
"""Epochs and losses."""


def draw(group: Group) -> Figure | None:
    """One curve per run, seeds of a row alike, many rows split by BN size; None without a logged step.

    A run that diverged before its first logged step is a cross at the left edge.
    """
    curves = {run.run_id: smoothed(run.steps, epochs=run.schedule_epochs) for run in group.runs}
    if not any(curves.values()):
        return None
    shown = [run for run in group.runs if curves[run.run_id] or run.state == "diverged"]
    rows = by_row(shown)
    panels = panels_of(list(rows))
    alone = len(panels) == 1
    heights = [4.0] if alone else [panel_height(len(panel.styles)) for panel in panels]
    figure = new_figure(7 if alone else 8, sum(heights) + 0.7)
    all_axes = figure.subplots(
        len(panels), 1, sharex=True, sharey=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    low, high = _limits(group.runs, curves)
    for panel, axes in zip(panels, all_axes, strict=True):
        mark_drops(axes, shown)
        early = count()
        for key, style in panel.styles.items():
            label = row_name(key) + seeds_label(rows[key])
            for run in rows[key]:
                points = curves[run.run_id]
                _draw_curve(axes, points, style, label=label)
                label = "_nolegend_"
                if run.state == "diverged":
                    epoch, loss = points[-1] if points else (0.0, high * (low / high) ** (APART * next(early)))
                    _draw_cross(axes, epoch, min(loss, high), colour=style[0])
        if not alone:
            legend_beside(axes, title=panel.title)
        axes.set(ylabel="training loss")
        dress(axes)
    _scale(all_axes[0], low, high)
    over_epochs(all_axes[-1])
    if alone:
        legend_below(figure, all_axes[0])
    title = "Training loss, one curve per seed; dashed: the learning rate drops"
    if any(run.state == "diverged" for run in shown):
        title += "; a cross: training diverged (at the upper edge: with a loss beyond it"
        title += ", at the left edge: before the first logged step)"
    entitle(figure, title, group, shown)
    return figure


def _draw_curve(axes: Axes, points: Curve, style: Style, *, label: str) -> None:
    colour, marker, line = style
    x, y = [epoch for epoch, _ in points], [loss for _, loss in points]
    axes.plot(
        x, y, color=colour, linestyle=line, linewidth=1.2, marker=marker, markersize=4, markevery=0.15, label=label
    )


def _draw_cross(axes: Axes, epoch: float, loss: float, *, colour: str) -> None:
    axes.plot([epoch], [loss], color=colour, marker="x", markersize=11, markeredgewidth=2.5, clip_on=False)


def _limits(runs: tuple[RunRecord, ...], curves: dict[str, Curve]) -> tuple[float, float]:
    """Of the axis: a little around all losses, but for those of a divergence."""
    everything = [loss for points in curves.values() for _, loss in points]
    sound = [loss for run in runs if run.state != "diverged" for _, loss in curves[run.run_id]]
    beyond = HEADROOM * max(sound) if sound else max(everything)
    return min(everything) / 1.1, min(beyond, 1.1 * max(everything))


def _scale(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.set_ylim(low, high)
    # A loss moves within a decade or two: the powers of ten alone would be one label.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def smoothed(steps: tuple[Numbers, ...], *, epochs: int) -> Curve:
    """Epoch and loss of the logged steps whose loss is finite and positive; of all `epochs`, MAX_POINTS averages.

    A run that is not over is averaged like its seeds that are.
    """
    pairs = [(line.get("epoch"), line.get("loss")) for line in steps]
    points = [(epoch, loss) for epoch, loss in pairs if epoch is not None and loss]
    width = max(1, ceil(len(points) * epochs / points[-1][0] / MAX_POINTS)) if points else 1
    parts = [points[first : first + width] for first in range(0, len(points), width)]
    return [(part[-1][0], fmean(loss for _, loss in part)) for part in parts]
