"""Figure 4: a small and a large batch under the long policy, epoch by epoch, with the decays dashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.style import PAPER, dress, entitle, legend_below, mark_drops, new_figure, over_epochs
from analysis.figures.validation import curves_of, draw_curves
from analysis.paper import paper_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "long_policy"
DRAWN = ((16, 16, "long", 1.0), (256, 16, "long", 1.0))
"""The rows of Figure 4; the paper gives their last points as numbers, in Table 3."""


def draw(group: Group) -> Figure | None:
    """mmAP over epochs of the runs under the long policy; None without one."""
    long = Group(group.title, tuple(run for run in group.runs if run.schedule == "long"))
    curves = curves_of(long) if long.runs else []
    if not curves:
        return None
    figure = new_figure(6, 4.4)
    axes = figure.subplots()
    mark_drops(axes, long.runs)
    draw_curves(axes, curves, over="epochs")
    if group.is_like_the_paper:
        printed = {row.key: row for row in paper_table(3).rows}
        for key, marker in zip(DRAWN, "os", strict=True):
            axes.plot(
                [18], [printed[key].mmAP or 0], marker, color=PAPER, markerfacecolor="none", markersize=9,
                label=f"{printed[key].label}, BN {key[1]} (paper, last epoch)",
            )  # fmt: skip
    axes.set(ylabel="mmAP (%)", ylim=(0, None))
    over_epochs(axes)
    dress(axes)
    legend_below(figure, axes)
    entitle(figure, "Long policy; dashed: the learning rate decays", group)
    return figure
