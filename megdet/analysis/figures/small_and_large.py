"""Figure 1: a small and a large batch, by epoch and by training time, and where the paper's ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from megdet.analysis.comparable import Group
from megdet.analysis.figures.curves import curves_of, draw_curves, fit_hours, marks_text, runs_of
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
from megdet.analysis.paper import PaperRow, paper_rows
from megdet.analysis.rows import RowKey, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "small_and_large"


def draw(group: Group) -> Figure | None:
    """Over epochs, over hours, and the paper's numbers (Table 3): among ours if their data and model are the paper's,
    else in a panel of their own. None without an mmAP.
    """
    curves = curves_of(group)
    printed = paper_rows("figure1")
    keys = small_and_large([key for key in curves if len(curves[key].mean)], [row.key for row in printed])
    if not keys:
        return None
    chosen = {key: curves[key] for key in keys}
    styles = {key: line_style(place) for place, key in enumerate(keys)}
    figure = new_figure(9 if group.is_like_the_paper else 11, 4.4)
    by_epoch, by_hours, *apart = figure.subplots(1, 2 if group.is_like_the_paper else 3)
    by_hours.sharey(by_epoch)
    mark_drops(by_epoch, group.runs[group.runs["schedule"].isin([key[2] for key in keys])])
    draw_curves(by_epoch, chosen, styles, over="epoch")
    draw_curves(by_hours, chosen, styles, over="hours")
    theirs = {row.key: row for row in paper_rows("table3")}
    if apart:
        _draw_apart(printed, apart[0])
    for key in keys if not apart else ():
        if key in theirs:
            by_hours.plot(
                [theirs[key].hours or 0], [theirs[key].mmAP or 0], styles[key][1], color=PAPER, markerfacecolor="none",
                markersize=10, markeredgewidth=1.5, label=f"{row_name(key)} (paper, last epoch)",
            )  # fmt: skip
    by_epoch.set(ylabel="mmAP (%)", ylim=(0, None))
    over_epochs(by_epoch)
    fit_hours(by_hours, chosen)
    dress(by_epoch, by_hours)
    legend_below(figure, by_epoch, by_hours)
    title = f"Accuracy of a small and a large batch on the validation set{marks_text(chosen)}"
    entitle(figure, title, group, runs_of(chosen))
    return figure


def small_and_large(keys: Collection[RowKey], drawn: Collection[RowKey]) -> list[RowKey]:
    """Which of the rows a figure of a small and a large batch shows.

    Those that the paper draws, if they are there. Else, of the rows that differ in the batch alone, the
    smallest and the largest batch; else the smallest and the largest of all. One row, or none, where there are no two.
    """
    if all(key in keys for key in drawn):
        return list(drawn)
    alike: dict[tuple[object, ...], list[RowKey]] = defaultdict(list)
    for key in sorted(keys):
        alike[key[1:]].append(key)
    widest = max(alike.values(), key=lambda some: (some[-1][0] / some[0][0], _usual(some[0])), default=[])
    if len(widest) < 2:
        ends = {end(key[0] for key in keys) for end in (min, max)} if keys else set()
        widest = [max((key for key in keys if key[0] == batch), key=_usual) for batch in sorted(ends)]
    return [widest[0], widest[-1]] if len(widest) > 1 else widest


def _usual(key: RowKey) -> tuple[bool, bool, int]:
    """Sort key among rows equally far apart: normal schedule, full learning rate, BN over more images first."""
    return key[2] == "normal", key[3] == 1, key[1]


def _draw_apart(rows: Sequence[PaperRow], axes: Axes) -> None:
    """Where the paper's rows ended, each with its name."""
    for place, row in enumerate(rows):
        x, y = row.hours or 0, row.mmAP or 0
        marker = line_style(place)[1]
        axes.plot([x], [y], marker, color=PAPER, markerfacecolor="none", markersize=8, markeredgewidth=1.5)
        text = f"{row_name(row.key)}\n{y:.1f} %, {x:.1f} h"
        axes.annotate(text, (x, y), xytext=(0, -8), textcoords="offset points", ha="center", va="top", fontsize=8)
    axes.set_title("the paper's last epochs (COCO, ResNet-50)", fontsize=9)
    axes.set(xlabel="training time (h)", ylabel="mmAP (%)")
    axes.margins(0.25)
    axes.set_ylim(0, 1.1 * max(row.mmAP or 0 for row in rows))
    dress(axes)
