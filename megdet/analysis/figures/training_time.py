"""The talk's bars: hours of training by mini-batch size, ours and the paper's."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import TYPE_CHECKING

from megdet.analysis.cells import hours
from megdet.analysis.comparable import Group
from megdet.analysis.figures.bars import FAILED, Bar, Length, draw_bars
from megdet.analysis.figures.style import entitle, seeds_label
from megdet.analysis.hardware import gpus_label, hardware_of
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import RowKey, by_row, place_of, row_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "training_time"
TALK: tuple[RowKey, ...] = ((16, 0, "normal", 1.0), (64, 16, "normal", 1.0), (256, 16, "normal", 1.0))
"""The rows of Table 3 that the talk shows as 16-batch, 64-batch and 256-batch: 33.2, 11.2 and 4.1 hours."""


def draw(group: Group) -> Figure | None:
    """A bar for each row that has finished, by hardware, and the talk's three; None if none has finished."""
    ours: dict[RowKey, list[tuple[str, Length | None]]] = {}
    finished = group.runs[(group.runs["status"] == "finished") & (group.runs["train_s"] > 0)]
    trained_on = hardware_of(finished)
    for key, runs in by_row(finished).items():
        runs = runs.sort_values("gpus", kind="stable")
        for hardware, same in runs.groupby(trained_on.loc[runs.index], sort=False):
            times = list(same["train_s"] / 3600)
            spread = stdev(times) if len(times) > 1 else 0.0
            bar = Length(fmean(times), _text(fmean(times), str(hardware)), spread)
            ours.setdefault(key, []).append((seeds_label(same), bar))
    if not ours:
        return None
    theirs = {
        row.key: Length(row.hours, _text(row.hours, gpus_label(row.gpus) if row.gpus else "")) if row.hours else FAILED
        for row in paper_rows("table2", "table3")
    }
    bars = []
    for key in sorted({*ours, *TALK}, key=place_of):
        label = row_name(key) + (" *" if key in TALK else "")
        for place, (seeds, length) in enumerate(ours.get(key, [("", None)])):
            bars.append(Bar(label + seeds, length, theirs.get(key) if place == 0 else None))
    figure = draw_bars(bars, xlabel="training time (h)", one_scale=group.is_like_the_paper)
    title = "Training time, mean over seeds; *: in the talk's figure; whiskers: standard deviation over seeds"
    entitle(figure, title, group, finished)
    return figure


def _text(time: float, hardware: str) -> str:
    return hours([time]) + (f" ({hardware})" if hardware else "")
