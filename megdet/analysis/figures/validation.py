"""mmAP of all rows over epochs, and over training time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megdet.analysis.comparable import Group
from megdet.analysis.figures.curves import curves_of, draw_curves, fit_hours, marks_text, runs_of
from megdet.analysis.figures.panels import panels_of
from megdet.analysis.figures.style import (
    dress,
    entitle,
    legend_below,
    legend_beside,
    mark_drops,
    new_figure,
    over_epochs,
    panel_height,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "validation_curves"


def draw(group: Group) -> Figure | None:
    """Over epochs (with the drops of the learning rate) at the left, over hours at the right; None without an mmAP.

    Many rows are split by BN size, with the other panels' curves in grey behind.
    """
    curves = curves_of(group)
    if not curves:
        return None
    panels = panels_of(list(curves))
    alone = len(panels) == 1
    heights = [4.2] if alone else [panel_height(len(panel.styles)) for panel in panels]
    figure = new_figure(9 if alone else 10, sum(heights) + 0.7)
    all_axes = figure.subplots(
        len(panels), 2, sharex="col", sharey=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for panel, (by_epoch, by_hours) in zip(panels, all_axes, strict=True):
        mark_drops(by_epoch, group.runs)
        for curve in curves.values() if not alone else ():
            for axes, over in ((by_epoch, "epoch"), (by_hours, "hours")):
                axes.plot(curve.mean[over], curve.mean["mmAP"], color="0.85", linewidth=0.8, zorder=0.5)
        draw_curves(by_epoch, curves, panel.styles, over="epoch")
        draw_curves(by_hours, curves, panel.styles, over="hours")
        by_epoch.set(ylabel="mmAP (%)")
        if not alone:
            legend_beside(by_hours, title=panel.title)
        dress(by_epoch, by_hours)
    all_axes[0, 0].set_ylim(0, None)
    over_epochs(all_axes[-1, 0])
    fit_hours(all_axes[-1, 1], curves)
    if alone:
        legend_below(figure, all_axes[0, 0])
    grey = "" if alone else "; grey: the other panels' rows"
    title = f"Accuracy on the validation set over epochs and over training time{marks_text(curves)}{grey}"
    entitle(figure, title, group, runs_of(curves))
    return figure
