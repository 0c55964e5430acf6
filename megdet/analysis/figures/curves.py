"""mmAP of each row over epochs and over training time: what Figures 1 and 4 and the panels of all rows draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import Style
from megdet.analysis.figures.style import drops_of, log_scale, seeds_label
from megdet.analysis.rows import RowKey, by_row, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Over = Literal["epoch", "hours"]


@dataclass(frozen=True)
class Curve:
    """mmAP of the runs of one row, averaged over the seeds that reached an epoch; diverged ones only if all did."""

    label: str
    mean: pd.DataFrame
    """A row for each epoch that was evaluated: `epoch`, `hours` of training until then, `mmAP` in percent, and
    `spread`, its standard deviation over the seeds (0 where there is one)."""
    diverged: pd.DataFrame
    """`epoch`, `hours` and `mmAP` of the last evaluation of each run that diverged after one."""
    runs: pd.DataFrame


def curves_of(group: Group) -> dict[RowKey, Curve]:
    """One curve per row (batch, bn_size, schedule, lr.scale) with an mmAP or a run that diverged before the first.

    Empty where no run has an mmAP.
    """
    points = group.epochs.dropna(subset=["mmAP", "train_s"])
    points = points.assign(hours=points["train_s"] / 3600)
    has_diverged = group.runs["status"] == "diverged"
    curves = {}
    for key, runs in by_row(group.runs[has_diverged | group.runs.index.isin(points["run"])]).items():
        diverged = points["run"].isin(runs.index[has_diverged[runs.index]])
        sound = points["run"].isin(runs.index) & ~diverged
        curves[key] = Curve(
            label=row_name(key) + seeds_label(runs),
            mean=_mean(points[sound if sound.any() else diverged]),
            diverged=points[diverged].groupby("run")[["epoch", "hours", "mmAP"]].last(),
            runs=runs,
        )
    return curves if any(len(curve.mean) for curve in curves.values()) else {}


def _mean(points: pd.DataFrame) -> pd.DataFrame:
    by_epoch = points.groupby("epoch")
    spread = by_epoch["mmAP"].std().fillna(0.0).rename("spread")
    return by_epoch[["hours", "mmAP"]].mean().join(spread).reset_index()


def draw_curves(axes: Axes, curves: Mapping[RowKey, Curve], styles: Mapping[RowKey, Style], *, over: Over) -> None:
    """The curves that have a style, each with its band over the seeds, and a cross where training diverged."""
    for key, (colour, marker, line) in styles.items():
        curve = curves[key]
        mean, spread = curve.mean["mmAP"], curve.mean["spread"]
        axes.plot(
            curve.mean[over], mean, label=curve.label, color=colour, marker=marker, linestyle=line, markersize=4,
            linewidth=1.4,
        )  # fmt: skip
        if spread.any():
            axes.fill_between(curve.mean[over], mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        for x, y in zip(curve.diverged[over], curve.diverged["mmAP"], strict=True):
            axes.plot([x], [y], color=colour, marker="x", markersize=11, markeredgewidth=2.5, linestyle="none")


def marks_text(curves: Mapping[RowKey, Curve]) -> str:
    """What a title says about the marks of these curves."""
    marks = {
        "dashed: the learning rate drops": bool(drops_of(runs_of(curves))),
        "band: standard deviation over seeds": any(curve.mean["spread"].any() for curve in curves.values()),
        "a cross: training diverged": any(len(curve.diverged) for curve in curves.values()),
    }
    return "".join(f"; {mark}" for mark, there in marks.items() if there)


def runs_of(curves: Mapping[RowKey, Curve]) -> pd.DataFrame:
    """The runs that these curves are made of."""
    return pd.concat([curve.runs for curve in curves.values()])


def fit_hours(axes: Axes, curves: Mapping[RowKey, Curve]) -> None:
    """Label the x axis in hours; logarithmic if some runs take many times as long as others."""
    from matplotlib.ticker import MaxNLocator

    ends = [curve.mean["hours"].iloc[-1] for curve in curves.values() if len(curve.mean)]
    axes.set_xlabel("training time (h)")
    if max(ends) > 12 * min(ends) > 0:
        log_scale(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))  # more have no room below narrow axes
        axes.xaxis.set_major_formatter("{x:g}")
