"""mmAP against BN size: how many images behind a statistic are best, ours and the paper's (Table 3)."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.style import dress, entitle, legend_below, line_style, new_figure, rows_of
from analysis.paper import paper_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "bn_size"

SPREAD = 1.03
"""By this factor each batch is drawn to the right of the one before: equal accuracies would hide each other."""

Values = dict[int, dict[int, list[float]]]
"""Of each batch, of each BN size: mmAP of each seed, in percent."""


def draw(group: Group) -> Figure | None:
    """Ours and the paper's in a panel each, a line per batch; None where no run with BN has finished."""
    ours: Values = {}
    for (batch, bn_size, schedule, scale), runs in rows_of(group.runs).items():
        found = [mmAP for run in runs if run.state == "finished" and (mmAP := run.final.get("mmAP")) is not None]
        if found and bn_size > 0 and schedule == "normal" and scale == 1:
            ours.setdefault(batch, {})[bn_size] = found
    if not ours:
        return None
    theirs: Values = {}
    for row in paper_table(3).rows:
        if row.key[1] > 0 and row.key[2] == "normal" and row.mmAP is not None:
            theirs.setdefault(row.key[0], {})[row.key[1]] = [row.mmAP]
    batches = sorted(ours.keys() | theirs.keys())
    figure = new_figure(8, 4.2)
    ours_axes, paper_axes = figure.subplots(1, 2, sharey=group.is_like_the_paper)
    _draw(ours_axes, ours, batches, title="ours")
    _draw(paper_axes, theirs, batches, title="paper")
    ours_axes.set_ylabel("mmAP (%)")
    legend_below(figure, paper_axes, ours_axes)
    entitle(figure, "Accuracy against BN size, normal schedule", group)
    return figure


def _draw(axes: Axes, values: Values, batches: list[int], *, title: str) -> None:
    for batch, by_size in sorted(values.items()):
        colour, marker, line = line_style(batches.index(batch))
        sizes = sorted(by_size)
        aside = SPREAD ** (batches.index(batch) - (len(batches) - 1) / 2)
        axes.errorbar(
            [aside * size for size in sizes],
            [fmean(by_size[size]) for size in sizes],
            [
                [fmean(by_size[size]) - min(by_size[size]) for size in sizes],
                [max(by_size[size]) - fmean(by_size[size]) for size in sizes],
            ],
            color=colour, marker=marker, linestyle=line, markersize=5, linewidth=1.2, capsize=2, label=f"batch {batch}",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("BN size (images)")
    axes.set_title(title, fontsize=9)
    dress(axes)
