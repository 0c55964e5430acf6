"""The talk's bars: hours of training by mini-batch size, ours and the paper's."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING

from analysis.comparable import Group
from analysis.figures.bars import Bar, Length, draw_bars
from analysis.figures.style import curve_label, entitle, gpus_label, rows_of
from analysis.paper import RowKey, paper_table
from analysis.tables import hours_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "training_time"
TALK: tuple[RowKey, ...] = ((16, 0, "normal", 1.0), (64, 16, "normal", 1.0), (256, 16, "normal", 1.0))
"""The rows of Table 3 that the talk shows as 16-batch, 64-batch and 256-batch: 33.2, 11.2 and 4.1 hours."""


def draw(group: Group) -> Figure | None:
    """A bar for each row that has finished, on each number of GPUs, and the talk's three; None if none has finished."""
    ours: dict[RowKey, list[Length]] = {}
    for key, runs in rows_of(group.runs).items():
        finished = [run for run in runs if run.state == "finished" and run.train_s > 0]
        for gpus in sorted({run.gpus for run in finished}):
            hours = [run.train_s / 3600 for run in finished if run.gpus == gpus]
            spread = stdev(hours) if len(hours) > 1 else 0.0
            ours.setdefault(key, []).append(Length(fmean(hours), _text(fmean(hours), gpus), spread))
    if not ours:
        return None
    theirs = {
        row.key: Length(row.hours, _text(row.hours, row.gpus))
        for number in (2, 3)
        for row in paper_table(number).rows
        if row.hours
    }
    bars = []
    for key in sorted({*ours, *TALK}, key=lambda key: (key[2] != "normal", key)):
        label = curve_label(key) + (" *" if key in TALK else "")
        for place, length in enumerate(ours.get(key, [None])):
            bars.append(Bar(label, length, theirs.get(key) if place == 0 else None))
    figure = draw_bars(bars, xlabel="training time (h)", one_scale=group.is_like_the_paper)
    entitle(figure, "Training time; *: in the talk's figure; whiskers: standard deviation over seeds", group)
    return figure


def _text(hours: float, gpus: int | None) -> str:
    return hours_text(hours) + (f" ({gpus_label(gpus)})" if gpus else "")
