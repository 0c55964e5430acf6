"""How many times faster training is on more GPUs, ours and the paper's (Table 3), beside the ideal line."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from megdet.analysis.comparable import Group
from megdet.analysis.figures.style import PAPER, dress, entitle, legend_below, line_style, new_figure
from megdet.analysis.hardware import devices_of, gpus_label, gpus_name, of_one_device
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import BASE, RowKey, bn_label, by_row, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "speed_up"


class Point(NamedTuple):
    """One row on a number of GPUs."""

    gpus: int
    key: RowKey
    hours: float


def points_of(group: Group) -> list[Point]:
    """The finished runs of the normal schedule, each row on each number of GPUs; fewest GPUs and images first."""
    return sorted(
        Point(int(gpus), key, fmean(seconds) / 3600)
        for key, runs in by_row(timed_runs(group)).items()
        for gpus, seconds in runs.groupby("gpus")["train_s"]
        if gpus == int(gpus)  # not those that moved on their way
    )


def timed_runs(group: Group) -> pd.DataFrame:
    """The runs behind the points; of one device."""
    runs = group.runs
    return of_one_device(runs[(runs["status"] == "finished") & (runs["train_s"] > 0) & (runs["schedule"] == "normal")])


def papers_points() -> list[Point]:
    """The rows of Table 3 with the normal schedule."""
    rows = [row for row in paper_rows("table3") if row.key[2] == "normal"]
    return sorted(Point(row.gpus or 0, row.key, row.hours or 0) for row in rows)


def draw(group: Group) -> Figure | None:
    """Hours of 16-base (where it was not run: of the first point) over those of each.

    The marker says the BN size, the number beside a point its batch. None until runs on two numbers of GPUs finish.
    """
    ours, theirs = points_of(group), papers_points()
    if len({point.gpus for point in ours}) < 2:
        return None
    figure = new_figure(9, 4.8)
    panels = figure.subplots(1, 2, sharex=group.is_like_the_paper, sharey=group.is_like_the_paper)
    sizes = sorted({point.key[1] for point in (*ours, *theirs)})
    timed = timed_runs(group)
    device = devices_of(timed).iloc[0]
    for axes, points, name, on in zip(panels, (ours, theirs), ("ours", "paper"), (device, ""), strict=True):
        _draw(axes, points, sizes, name=name, device=on)
    panels[0].set_ylabel("speed-up (times)")
    legend_below(figure, *panels)
    title = "Speed-up of training against GPUs, mean over seeds; number: batch; dashed: in proportion to the GPUs"
    entitle(figure, title, group, timed)
    return figure


def base_of(points: Sequence[Point]) -> Point:
    """The point that speed-ups are relative to."""
    return next((point for point in points if point.key == BASE), points[0])


def _draw(axes: Axes, points: Sequence[Point], sizes: Sequence[int], *, name: str, device: str) -> None:
    base = base_of(points)
    for size in sizes:
        some = [point for point in points if point.key[1] == size]
        colour, marker, _ = line_style(sizes.index(size))
        axes.plot(
            [point.gpus for point in some], [base.hours / point.hours for point in some], marker, color=colour,
            markerfacecolor="none" if name == "paper" else colour, markeredgewidth=1.5, markersize=6,
            label=bn_label(size),
        )  # fmt: skip
    ends = [min(point.gpus for point in points), max(point.gpus for point in points)]
    axes.plot(ends, [gpus / base.gpus for gpus in ends], "--", color=PAPER, linewidth=1)
    for gpus, speed, label in labels_of(points):
        axes.annotate(label, (gpus, speed), xytext=(7, 0), textcoords="offset points", fontsize=7, va="center")
    for scale in (axes.set_xscale, axes.set_yscale):
        scale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set_xlabel(gpus_name(device))
    axes.set_title(
        f"{name}; 1: {row_name(base.key)} on {gpus_label(base.gpus, device)}, {base.hours:.3g} h", fontsize=9
    )
    dress(axes)


def labels_of(points: Sequence[Point]) -> list[tuple[int, float, str]]:
    """GPUs, speed-up and text (the batches) of each label; points that nearly coincide share one."""
    near: list[list[Point]] = []
    for point in sorted(points, key=lambda point: (point.gpus, point.hours)):
        first = near[-1][0] if near else None
        if first and first.gpus == point.gpus and point.hours < 1.12 * first.hours:
            near[-1].append(point)
        else:
            near.append([point])
    return [(some[0].gpus, base_of(points).hours / some[0].hours, _batches(some)) for some in near]


def _batches(points: Sequence[Point]) -> str:
    """Each batch once, fastest first; a scaled learning rate does not change the time."""
    return ", ".join(dict.fromkeys(str(point.key[0]) for point in points))
