"""mmAP of each row over epochs and over training time: what Figures 1 and 4 and the panels of all rows draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from megdet.analysis.by_row import by_row
from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import Style
from megdet.analysis.figures.style import seeds_label
from megdet.analysis.paper import RowKey, row_name
from megdet.analysis.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Over = Literal["epochs", "hours"]


@dataclass(frozen=True)
class Point:
    """An evaluation: after how many epochs and hours of training, and its mmAP in percent."""

    epochs: int
    hours: float
    mmAP: float


@dataclass(frozen=True)
class Curve:
    """mmAP of the runs of one row, averaged over the seeds that reached an epoch; diverged ones only if all did."""

    label: str
    mean: list[Point]
    spread: list[float]
    """Standard deviation of mmAP over the seeds at each point; 0 where there is one."""
    diverged: list[Point]
    """The last evaluation of each run that diverged after one."""
    runs: list[RunRecord]


def curves_of(group: Group) -> dict[RowKey, Curve]:
    """One curve per row (batch, bn_size, schedule, lr.scale) with an mmAP or a run that diverged before the first.

    Empty where no run has an mmAP.
    """
    curves = {}
    for key, runs in by_row(group.runs).items():
        points = {run.run_id: _points(run) for run in runs}
        runs = [run for run in runs if points[run.run_id] or run.state == "diverged"]
        ends = [points[run.run_id][-1] for run in runs if run.state == "diverged" and points[run.run_id]]
        sound = [run for run in runs if run.state != "diverged"]
        at: dict[int, list[Point]] = defaultdict(list)
        for run in sound or runs:
            for point in points[run.run_id]:
                at[point.epochs].append(point)
        if runs:
            values = {epoch: [point.mmAP for point in at[epoch]] for epoch in sorted(at)}
            curves[key] = Curve(
                label=row_name(key) + seeds_label(runs),
                mean=[Point(epoch, fmean(p.hours for p in at[epoch]), fmean(values[epoch])) for epoch in values],
                spread=[stdev(mmAPs) if len(mmAPs) > 1 else 0.0 for mmAPs in values.values()],
                diverged=ends,
                runs=runs,
            )
    return curves if any(curve.mean for curve in curves.values()) else {}


def draw_curves(axes: Axes, curves: Mapping[RowKey, Curve], styles: Mapping[RowKey, Style], *, over: Over) -> None:
    """The curves that have a style, each with its band over the seeds, and a cross where training diverged."""
    for key, (colour, marker, line) in styles.items():
        curve = curves[key]
        x = [getattr(point, over) for point in curve.mean]
        axes.plot(
            x, [point.mmAP for point in curve.mean], label=curve.label, color=colour, marker=marker, linestyle=line,
            markersize=4, linewidth=1.4,
        )  # fmt: skip
        if any(curve.spread):
            low, high = (
                [point.mmAP + sign * spread for point, spread in zip(curve.mean, curve.spread, strict=True)]
                for sign in (-1, 1)
            )
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        for point in curve.diverged:
            axes.plot(
                [getattr(point, over)], [point.mmAP], color=colour, marker="x", markersize=11, markeredgewidth=2.5,
                linestyle="none",
            )  # fmt: skip


def marks_text(curves: Mapping[RowKey, Curve]) -> str:
    """What a title says of the marks of these curves, over epochs and besides."""
    marks = {
        "dashed: the learning rate drops": any(run.milestones for curve in curves.values() for run in curve.runs),
        "band: standard deviation over seeds": any(any(curve.spread) for curve in curves.values()),
        "a cross: training diverged": any(curve.diverged for curve in curves.values()),
    }
    return "".join(f"; {mark}" for mark, there in marks.items() if there)


def runs_of(curves: Mapping[RowKey, Curve]) -> list[RunRecord]:
    """The runs that these curves are made of."""
    return [run for curve in curves.values() for run in curve.runs]


def fit_hours(axes: Axes, curves: Mapping[RowKey, Curve]) -> None:
    """Hours along the x axis; logarithmic where a run takes many times as long as another."""
    from matplotlib.ticker import MaxNLocator

    ends = [curve.mean[-1].hours for curve in curves.values() if curve.mean]
    axes.set_xlabel("training time (h)")
    if max(ends) > 12 * min(ends) > 0:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))  # more have no room below narrow axes
    axes.xaxis.set_major_formatter("{x:g}")


def _points(run: RunRecord) -> list[Point]:
    return [
        Point(int(line["epoch"] or 0), train_s / 3600, mmAP)
        for line in run.epochs
        if (mmAP := line.get("mmAP")) is not None and (train_s := line.get("train_s")) is not None
    ]
