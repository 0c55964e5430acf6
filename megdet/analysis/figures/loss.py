"""The training loss over epochs, with a cross where training diverged."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import ceil
from typing import TYPE_CHECKING

import pandas as pd

from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import Style, panels_of
from megdet.analysis.figures.style import (
    dress,
    entitle,
    legend_below,
    legend_beside,
    log_scale,
    mark_drops,
    new_figure,
    over_epochs,
    panel_height,
    seeds_label,
)
from megdet.analysis.rows import by_row, row_name

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


def draw(group: Group) -> Figure | None:
    """One curve per run over the losses of its logged steps (pale), seeds of a row alike, many rows split by BN size.

    None without a logged step.
    A run that diverged before its first logged step is a cross at the left edge.
    """
    steps = group.steps[(group.steps["loss"] > 0) & group.steps["epoch"].notna()]
    curves = {run: smoothed(part, epochs=group.runs.at[run, "schedule.epochs"]) for run, part in steps.groupby("run")}
    if not curves:
        return None
    has_diverged = group.runs["status"] == "diverged"
    shown = group.runs[has_diverged | group.runs.index.isin(list(curves))]
    rows = by_row(shown)
    panels = panels_of(list(rows))
    alone = len(panels) == 1
    heights = [4.0] if alone else [panel_height(len(panel.styles)) for panel in panels]
    figure = new_figure(7 if alone else 8, sum(heights) + 0.7)
    all_axes = figure.subplots(
        len(panels), 1, sharex=True, sharey=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    low, high = _limits(curves, sound=group.runs.index[~has_diverged])
    for panel, axes in zip(panels, all_axes, strict=True):
        mark_drops(axes, shown)
        early = count()
        for key, style in panel.styles.items():
            label = row_name(key) + seeds_label(rows[key])
            for run in rows[key].index:
                points = curves.get(run, steps.iloc[:0])
                raw = steps[steps["run"] == run]
                if len(raw) > len(points):
                    # As pixels: thousands of points would make a vector file of many MB.
                    axes.plot(raw["epoch"], raw["loss"], color=style[0], linewidth=0.4, alpha=0.25, rasterized=True)
                _draw_curve(axes, points, style, label=label)
                label = "_nolegend_"
                if has_diverged[run]:
                    if run in curves:
                        epoch, loss = points[["epoch", "loss"]].iloc[-1]
                    else:
                        epoch, loss = 0.0, high * (low / high) ** (APART * next(early))
                    _draw_cross(axes, epoch, min(loss, high), colour=style[0])
        if not alone:
            legend_beside(axes, title=panel.title)
        axes.set(ylabel="training loss")
        dress(axes)
    all_axes[0].set_ylim(low, high)
    log_scale(all_axes[0], "y")
    over_epochs(all_axes[-1])
    if alone:
        legend_below(figure, all_axes[0])
    title = "Training loss, one curve per seed; dashed: the learning rate drops"
    if has_diverged.any():
        title += "; a cross: training diverged (at the upper edge: with a loss beyond it"
        title += ", at the left edge: before the first logged step)"
    entitle(figure, title, group, shown)
    return figure


def _draw_curve(axes: Axes, points: pd.DataFrame, style: Style, *, label: str) -> None:
    colour, marker, line = style
    axes.plot(
        points["epoch"], points["loss"], color=colour, linestyle=line, linewidth=1.2, marker=marker, markersize=4,
        markevery=0.15, label=label,
    )  # fmt: skip


def _draw_cross(axes: Axes, epoch: float, loss: float, *, colour: str) -> None:
    axes.plot([epoch], [loss], color=colour, marker="x", markersize=11, markeredgewidth=2.5, clip_on=False)


def _limits(curves: Mapping[int, pd.DataFrame], *, sound: pd.Index) -> tuple[float, float]:
    """Of the axis: a little around all losses, but for those of a divergence."""
    losses = pd.concat({run: points["loss"] for run, points in curves.items()})
    of_sound = losses[losses.index.get_level_values(0).isin(sound)]
    beyond = HEADROOM * of_sound.max() if len(of_sound) else losses.max()
    return losses.min() / 1.1, min(beyond, 1.1 * losses.max())


def smoothed(steps: pd.DataFrame, *, epochs: int) -> pd.DataFrame:
    """`epoch` and `loss` of the logged steps; of all `epochs`, MAX_POINTS averages.

    A run that is not over is averaged like its seeds that are.
    """
    width = max(1, ceil(len(steps) * epochs / steps["epoch"].iloc[-1] / MAX_POINTS))
    part = pd.RangeIndex(len(steps)) // width
    return steps.groupby(part).agg({"epoch": "last", "loss": "mean"})
