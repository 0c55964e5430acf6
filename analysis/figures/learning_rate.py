"""The learning rate over epochs: warm-up, the linear scaling with the batch, the decays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.style import dress, entitle, legend_below, line_style, new_figure, over_epochs, rows_of
from analysis.paper import label_of
from analysis.runs import Numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "learning_rate"


def draw(group: Group) -> Figure | None:
    """One curve per batch, schedule and scale: the BN size does not change it. None without a logged step."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for key, runs in rows_of(group.runs).items():
        longest = max((_points(run.steps) for run in runs), key=len)
        if len(longest) > len(curves.get(label_of(key), [])):
            curves[label_of(key)] = longest
    if not curves:
        return None
    figure = new_figure(6, 4.2)
    axes = figure.subplots()
    for place, (label, points) in enumerate(curves.items()):
        colour, marker, line = line_style(place)
        axes.plot(
            [epoch for epoch, _ in points], [lr for _, lr in points], color=colour, linestyle=line, linewidth=1.4,
            marker=marker, markersize=4, markevery=(place / 20, 0.15), label=f"batch {label}",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(ylabel="learning rate")
    over_epochs(axes)
    dress(axes)
    legend_below(figure, axes)
    entitle(figure, "Learning rate of each step", group)
    return figure


def _points(steps: tuple[Numbers, ...]) -> list[tuple[float, float]]:
    """Epoch and learning rate of the steps that were logged."""
    pairs = [(line.get("epoch"), line.get("lr")) for line in steps]
    return [(epoch, lr) for epoch, lr in pairs if epoch is not None and lr]
