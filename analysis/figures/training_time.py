"""The talk's bars: hours of training by mini-batch size, ours and the paper's."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.style import OURS, PAPER, curve_label, dress, entitle, new_figure, rows_of
from analysis.paper import paper_table
from analysis.tables import hours_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "training_time"
TALK = ((16, 0, "normal", 1.0), (64, 16, "normal", 1.0), (256, 16, "normal", 1.0))
"""The rows of Table 3 that the talk shows as 16-batch, 64-batch and 256-batch: 33.2, 11.2 and 4.1 hours."""


def draw(group: Group) -> Figure | None:
    """A bar for each row that has finished, and the talk's three; each in hours of its own scale."""
    bars = []
    for key, runs in rows_of(group.runs).items():
        finished = [run for run in runs if run.state == "finished" and run.train_s > 0]
        for gpus in sorted({run.gpus for run in finished}):
            hours = fmean(run.train_s for run in finished if run.gpus == gpus) / 3600
            bars.append((f"{curve_label(key)}\n{_gpus(gpus)}", hours))
    if not bars:
        return None
    printed = {row.key: row for row in paper_table(3).rows}
    theirs = [(f"{key[0]}-batch\n{_gpus(printed[key].gpus or 0)}", printed[key].hours or 0.0) for key in TALK]
    figure = new_figure(9, 1.6 + 0.42 * max(len(bars), len(theirs)))
    ours_axes, paper_axes = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw(ours_axes, bars, title="ours", colour=OURS, hatch="")
    _draw(paper_axes, theirs, title="paper", colour=PAPER, hatch="//")
    entitle(figure, "Training time", group)
    return figure


def _draw(axes: Axes, bars: list[tuple[str, float]], *, title: str, colour: str, hatch: str) -> None:
    made = axes.barh([name for name, _ in bars], [hours for _, hours in bars], color=colour, hatch=hatch, ec="white")
    axes.bar_label(made, [hours_text(hours) for _, hours in bars], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="training time (h)")
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.15)
    dress(axes)
    axes.grid(visible=False, axis="y")


def _gpus(number: int) -> str:
    return f"{number} GPU" + ("s" if number != 1 else "")
