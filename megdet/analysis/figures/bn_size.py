"""mmAP against BN size: how many images behind a statistic are best, ours and the paper's (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import pandas as pd

from megdet.analysis.collapsed import rows_with_collapsed
from megdet.analysis.comparable import Group
from megdet.analysis.figures.style import dress, entitle, legend_below, line_style, new_figure
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import by_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "bn_size"

ASIDE = 1.1
"""By this factor the batches of one BN size stand beside each other: equal accuracies would hide each other."""

LEAST_SPAN = 2.0
"""mmAP that a panel covers at least: a tenth of one should not look like much."""

LINE = 0.08
"""Of a panel's height: a line of text."""

Values = dict[int, dict[int, list[float]]]
"""Of each batch, of each BN size: mmAP of each seed, in percent."""


def draw(group: Group) -> Figure | None:
    """Ours and the paper's in a panel each, a line per batch; None where no run with BN has finished.

    Rows of which a run collapsed are named at the foot, unless all are: their points would hide all other differences.
    """
    shown = group.runs[group.runs["mmAP"].notna()]
    rows = {key: runs for key, runs in by_row(shown).items() if key[1] > 0 and key[2:] == ("normal", 1.0)}
    if not rows:
        return None
    lost = rows_with_collapsed(rows, group.runs)
    if len(lost) == len(rows):
        lost = set()
    ours: Values = {}
    below: Values = {}
    for key, runs in rows.items():
        (below if key in lost else ours).setdefault(key[0], {})[key[1]] = list(runs["mmAP"])
    theirs: Values = {}
    for row in paper_rows("table3"):
        if row.key[1] > 0 and row.key[2] == "normal" and row.mmAP is not None:
            theirs.setdefault(row.key[0], {})[row.key[1]] = [row.mmAP]
    labels = {batch: f"batch {batch}{_seeds(ours.get(batch, {}))}" for batch in sorted(ours.keys() | theirs.keys())}
    figure = new_figure(8, 4.2)
    ours_axes, paper_axes = figure.subplots(1, 2, sharey=group.is_like_the_paper)
    _draw(ours_axes, ours, labels, title="ours")
    _name_at_the_foot(ours_axes, below)
    _draw(paper_axes, theirs, labels, title="paper")
    legend_below(figure, paper_axes, ours_axes)
    title = (
        "Accuracy against BN size under the normal schedule, mean over seeds; whiskers: standard deviation over seeds; "
        "points about a tick are of its BN size"
    )
    if below:
        title += "; at the foot: rows of which a run ended below a tenth of the best"
    entitle(figure, title, group, pd.concat(rows.values()))
    return figure


def _seeds(by_size: Mapping[int, list[float]]) -> str:
    """The number of seeds behind a batch's points, unless it is one."""
    counts = sorted({len(mmAPs) for mmAPs in by_size.values()})
    if not counts or counts[-1] == 1:
        return ""
    return f" ({counts[0]} seeds)" if len(counts) == 1 else f" ({counts[0]} to {counts[-1]} seeds)"


def _draw(axes: Axes, values: Values, labels: Mapping[int, str], *, title: str) -> None:
    for batch, by_size in sorted(values.items()):
        colour, marker, line = line_style(list(labels).index(batch))
        sizes = sorted(by_size)
        axes.errorbar(
            [size * ASIDE ** _steps_aside(values, batch, size) for size in sizes],
            [fmean(by_size[size]) for size in sizes],
            [stdev(by_size[size]) if len(by_size[size]) > 1 else nan for size in sizes],  # no whisker of one seed
            color=colour, marker=marker, linestyle=line, markersize=5, linewidth=1.2, capsize=2, label=labels[batch],
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="BN size (images)", ylabel="mmAP (%)")
    low, high = axes.get_ylim()
    if (lacking := LEAST_SPAN - (high - low)) > 0:
        axes.set_ylim(low - lacking / 2, high + lacking / 2)
    axes.set_title(title, fontsize=9)
    dress(axes)


def _name_at_the_foot(axes: Axes, below: Values) -> None:
    """Arrows down at the BN sizes of rows that lie below the axis, with batch and mmAP."""
    at_size: dict[int, list[str]] = {}
    for batch, by_size in sorted(below.items()):
        for size, mmAPs in by_size.items():
            at_size.setdefault(size, []).append(f"batch {batch}: {fmean(mmAPs):.1f}")
    # Each on a line of its own, for neighbours are wider than the space between two sizes; and all below the points.
    lines = [(size, text) for size, texts in sorted(at_size.items()) for text in texts]
    if not lines:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low - LINE * (high - low) * (len(lines) + 1), high)
    for line, (size, text) in enumerate(lines, start=1):
        axes.annotate(
            text, (size, 0), xycoords=("data", "axes fraction"), xytext=(size, LINE * line),
            textcoords=("data", "axes fraction"), ha="center", fontsize=7, arrowprops={"arrowstyle": "->"},
        )  # fmt: skip


def _steps_aside(values: Values, batch: int, size: int) -> float:
    """Offsets from a BN size's tick, so that the batches of that size are centred on it."""
    there = sorted(other for other, by_size in values.items() if size in by_size)
    return there.index(batch) - (len(there) - 1) / 2
