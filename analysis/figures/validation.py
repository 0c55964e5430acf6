"""Figure 1: mmAP over epochs, and over training time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "validation_curves"


@dataclass(frozen=True)
class Curve:
    """mmAP of the runs of one row, averaged over their seeds."""

    label: str
    epochs: list[int]
    hours: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    diverged: bool


def curves_of(group: Group) -> list[Curve]:
    """One curve per row (batch, bn_size, schedule, lr.scale) that has an epoch with an mmAP."""
    curves = []
    for key, runs in rows_of(group.runs).items():
        values: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for run in runs:
            for line in run.epochs:
                mmAP, train_s = line.get("mmAP"), line.get("train_s")
                if mmAP is not None and train_s is not None:
                    values[int(line["epoch"] or 0)].append((mmAP, train_s / 3600))
        if values:
            epochs = sorted(values)
            curves.append(
                Curve(
                    label=curve_label(key),
                    epochs=epochs,
                    hours=[fmean(hours for _, hours in values[epoch]) for epoch in epochs],
                    mean=[fmean(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    low=[min(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    high=[max(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    seeds=max(len(points) for points in values.values()),
                    diverged=all(run.state == "diverged" for run in runs),
                )
            )
    return curves


def draw(group: Group) -> Figure | None:
    """Both panels: over epochs (with the drops of the learning rate) and over hours."""
    curves = curves_of(group)
    if not curves:
        return None
    figure = new_figure(9, 4.2 + 0.22 * -(-len(curves) // 4))
    by_epoch, by_hours = figure.subplots(1, 2, sharey=True)
    mark_drops(by_epoch, group.runs)
    draw_curves(by_epoch, curves, over="epochs")
    draw_curves(by_hours, curves, over="hours")
    by_epoch.set(ylabel="mmAP (%)", ylim=(0, None))
    over_epochs(by_epoch)
    by_hours.set(xlabel="training time (h)")
    if max(curve.hours[-1] for curve in curves) > 12 * min(curve.hours[-1] for curve in curves):
        by_hours.set_xscale("log")
        by_hours.xaxis.set_major_formatter("{x:g}")
    dress(by_epoch, by_hours)
    legend_below(figure, by_epoch)
    entitle(figure, "Accuracy on the validation set", group)
    return figure


def draw_curves(axes: Axes, curves: Sequence[Curve], *, over: str) -> None:
    """Each curve with its band over the seeds, and a cross where training diverged."""
    for place, curve in enumerate(curves):
        x = curve.epochs if over == "epochs" else curve.hours
        colour, marker, line = line_style(place)
        axes.plot(
            x,
            curve.mean,
            label=curve.label + (f" ({curve.seeds} seeds)" if curve.seeds > 1 else ""),
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=4,
            linewidth=1.4,
        )
        if curve.seeds > 1:
            axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        if curve.diverged:
            axes.plot(x[-1:], curve.mean[-1:], color=colour, marker="x", markersize=11, markeredgewidth=2.5)
