"""The learning rate over epochs: warm-up, the linear scaling with the batch, the decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megdet.analysis.by_row import by_row, place_of
from megdet.analysis.comparable import Group
from megdet.analysis.figures.panels import styles_by_batch
from megdet.analysis.figures.style import dress, entitle, legend_below, new_figure, over_epochs
from megdet.analysis.paper import RowKey, label_of
from megdet.analysis.runs import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "learning_rate"

Curve = list[tuple[float, float]]
"""Epochs and learning rates."""


def draw(group: Group) -> Figure | None:
    """A panel per schedule, in it a curve per batch and scale: the BN size does not change it.

    None without a logged step.
    """
    curves: dict[RowKey, Curve] = {}
    for (batch, _, schedule, scale), runs in by_row(group.runs).items():
        longest = max((_points(run.steps) for run in runs), key=len)
        key = (batch, 0, schedule, scale)
        if len(longest) > len(curves.get(key, [])):
            curves[key] = longest
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
                    [epoch for epoch, _ in points], [lr for _, lr in points], color=colour, linestyle=line,
                    linewidth=1.4, marker=marker, markersize=4, markevery=(place / 50, 0.15),
                    label=f"batch {label_of((*key[:2], 'normal', key[3]))}",
                )  # fmt: skip
        axes.set_title(f"{name} schedule", fontsize=9)
        over_epochs(axes)
        dress(axes)
    all_axes[0].set_yscale("log")
    all_axes[0].yaxis.set_major_formatter("{x:g}")
    all_axes[0].set(ylabel="learning rate")
    legend_below(figure, *all_axes)
    title = "Learning rate of the steps that were logged, with straight lines between them"
    entitle(figure, title, group, [run for run in group.runs if run.steps])
    return figure


def _points(steps: tuple[Numbers, ...]) -> Curve:
    """Epoch and learning rate of the steps that were logged."""
    pairs = [(line.get("epoch"), line.get("lr")) for line in steps]
    return [(epoch, lr) for epoch, lr in pairs if epoch is not None and lr]
