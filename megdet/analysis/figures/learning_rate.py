"""The learning rate over epochs: warm-up, the linear scaling with the batch, the decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import styles_by_batch
from megdet.analysis.figures.style import dress, entitle, legend_below, log_scale, new_figure, over_epochs
from megdet.analysis.rows import RowKey, by_row, label_of, place_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "learning_rate"


def draw(group: Group) -> Figure | None:
    """A panel per schedule, in it a curve per batch and scale: the BN size does not change it.

    None without a logged step.
    """
    curves: dict[RowKey, pd.DataFrame] = {}
    logged = dict(list(group.steps[group.steps["lr"] > 0].groupby("run")))
    for (batch, _, schedule, scale), runs in by_row(group.runs).items():
        key = (batch, 0, schedule, scale)
        for run in runs.index.intersection(list(logged), sort=False):
            if key not in curves or len(logged[run]) > len(curves[key]):
                curves[key] = logged[run]
    if not curves:
        return None
    schedules = list(dict.fromkeys(key[2] for key in curves))
    styles = styles_by_batch((*key[:2], "", key[3]) for key in curves)
    figure = new_figure(6 if len(schedules) == 1 else 9, 4.4)
    all_axes = figure.subplots(1, len(schedules), sharey=True, squeeze=False)[0]
    for name, axes in zip(schedules, all_axes, strict=True):
        for place, (key, points) in enumerate(sorted(curves.items(), key=lambda item: place_of(item[0]))):
            if key[2] == name:
                colour, marker, line = styles[(*key[:2], "", key[3])]
                axes.plot(
                    points["epoch"], points["lr"], color=colour, linestyle=line,
                    linewidth=1.4, marker=marker, markersize=4, markevery=(place / 50, 0.15),
                    label=f"batch {label_of((*key[:2], 'normal', key[3]))}",
                )  # fmt: skip
        axes.set_title(f"{name} schedule", fontsize=9)
        over_epochs(axes)
        dress(axes)
    log_scale(all_axes[0], "y")
    all_axes[0].set(ylabel="learning rate")
    legend_below(figure, *all_axes)
    title = "Learning rate of the steps that were logged, with straight lines between them"
    entitle(figure, title, group, group.runs[group.runs.index.isin(group.steps["run"])])
    return figure
