"""Figure 4: a small and a large batch under the long policy, epoch by epoch, with the decays dashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megdet.analysis.comparable import Group
from megdet.analysis.figures.curves import curves_of, draw_curves, marks_text, runs_of
from megdet.analysis.figures.small_and_large import small_and_large
from megdet.analysis.figures.style import (
    PAPER,
    dress,
    entitle,
    legend_below,
    line_style,
    mark_drops,
    new_figure,
    over_epochs,
)
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import row_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "long_policy"


def draw(group: Group) -> Figure | None:
    """mmAP over epochs, with the paper's last points (in words, where not comparable); None without a long run."""
    curves = {key: curve for key, curve in curves_of(group).items() if key[2] == "long" and len(curve.mean)}
    printed = paper_rows("figure4")
    keys = small_and_large(list(curves), [row.key for row in printed])
    if not keys:
        return None
    styles = {key: line_style(place) for place, key in enumerate(keys)}
    figure = new_figure(6, 4.4)
    axes = figure.subplots()
    mark_drops(axes, group.runs[group.runs["schedule"] == "long"])
    chosen = {key: curves[key] for key in keys}
    draw_curves(axes, chosen, styles, over="epoch")
    title = f"Accuracy under the long schedule{marks_text(chosen)}"
    if not group.is_like_the_paper:
        title += "; the paper's last epochs: " + ", ".join(f"{row.mmAP:.1f} % ({row_name(row.key)})" for row in printed)
    else:
        for place, row in enumerate(printed):
            _, marker, _ = styles.get(row.key, line_style(place))
            axes.plot(
                [18], [row.mmAP or 0], marker, color=PAPER, markerfacecolor="none", markersize=9,
                label=f"{row_name(row.key)} (paper, last epoch)",
            )  # fmt: skip
    axes.set(ylabel="mmAP (%)", ylim=(0, None))
    over_epochs(axes)
    dress(axes)
    legend_below(figure, axes)
    entitle(figure, title, group, runs_of(chosen))
    return figure
