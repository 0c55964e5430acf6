"""The talk's bars of improvement: mmAP that large batches and BN gain over the baseline, ours and the paper's.

Of the talk's six steps (large batch, precise RoI pooling, context, mask generator, multi-scale, ensemble) the first
alone is in this project, and the talk prints no numbers on its bars. So these are the rows of Tables 2 and 3, each
less 16-base.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from megdet.analysis.collapsed import rows_with_collapsed
from megdet.analysis.comparable import Group
from megdet.analysis.figures.bars import FAILED, Bar, Length, draw_bars
from megdet.analysis.figures.style import entitle, seeds_label
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import BASE, by_row, row_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "improvement"


def draw(group: Group) -> Figure | None:
    """A bar for each row that has finished or diverged; None without two that finished, one of them the baseline.

    Rows of which a run collapsed have a text instead: their bars would hide all others.
    Where 16-base was not run, the frozen run of the smallest batch stands in for it (the title says so), and nothing
    but the rows' order can be held against the paper's bars, which are over 16-base.
    """
    ended = group.runs[group.runs["mmAP"].notna() | (group.runs["status"] == "diverged")]
    rows = by_row(ended)
    ours = {key: mmAPs for key, runs in rows.items() if (mmAPs := list(runs["mmAP"].dropna()))}
    base = BASE if BASE in ours else min((key for key in ours if key[1:] == BASE[1:]), default=None)
    if base is None or len(ours) < 2:
        return None
    printed = {row.key: row.mmAP for row in paper_rows("table2", "table3")}
    theirs = {key: _gain([mmAP], [printed[BASE] or 0]) if mmAP else FAILED for key, mmAP in printed.items()}
    lost = rows_with_collapsed(rows, group.runs)
    bars = [
        Bar(
            row_name(key) + seeds_label(runs),
            ours=_ours(ours.get(key), ours[base], collapsed=key in lost),
            theirs=theirs.get(key),
        )
        for key, runs in rows.items()
        if key != base
    ]
    figure = draw_bars(bars, xlabel="mmAP gained (points)", one_scale=group.is_like_the_paper)
    ours_axes, paper_axes = figure.axes
    if spread := _spread(ours[base]):
        ours_axes.axvspan(-spread, spread, color="0.88", zorder=0)
    for axes in (ours_axes, paper_axes):
        axes.axvline(0, color="black", linewidth=0.8)
    seeds = f" over {len(ours[base])} seeds" if len(ours[base]) > 1 else ""
    numbers = f"({fmean(ours[base]):.1f} %{seeds}; paper: 16-base, {printed[BASE]:.1f} %)"
    about = f"Improvement of mmAP, mean over seeds, over {row_name(base)} {numbers}"
    about += "; whiskers, and the band for the baseline: standard deviation over seeds"
    if lost - {base}:
        about += "; collapsed: a run ended below a tenth of the best"
    entitle(figure, about, group, ended)
    return figure


def _ours(mmAPs: Sequence[float] | None, base: Sequence[float], *, collapsed: bool) -> Length:
    if mmAPs is None:
        return Length(0.0, "diverged")
    return Length(0.0, f"collapsed ({fmean(mmAPs):.1f} %)") if collapsed else _gain(mmAPs, base)


def _gain(mmAPs: Sequence[float], base: Sequence[float]) -> Length:
    points = fmean(mmAPs) - fmean(base)
    return Length(points, f"{round(points, 1) + 0.0:+.1f}", _spread(mmAPs))  # + 0.0: no "-0.0"


def _spread(mmAPs: Sequence[float]) -> float:
    return stdev(mmAPs) if len(mmAPs) > 1 else 0.0
