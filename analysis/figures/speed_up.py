"""How many times faster training is on more GPUs, ours and the paper's (Table 3), beside the ideal line."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from analysis.comparable import Group
from analysis.figures.style import COLOURS, PAPER, curve_label, dress, entitle, legend_below, new_figure, rows_of
from analysis.paper import paper_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "speed_up"


class Point(NamedTuple):
    """One row on a number of GPUs."""

    gpus: int
    batch: int
    bn_size: int
    hours: float
    label: str


def points_of(group: Group) -> list[Point]:
    """The finished runs of the normal schedule, each row on each number of GPUs; fewest GPUs and images first."""
    points = []
    for key, runs in rows_of(group.runs).items():
        done = [run for run in runs if run.state == "finished" and run.train_s > 0 and run.schedule == "normal"]
        for gpus in {run.gpus for run in done}:
            hours = fmean(run.train_s for run in done if run.gpus == gpus) / 3600
            points.append(Point(gpus, key[0], key[1], hours, curve_label(key)))
    return sorted(points)


def papers_points() -> list[Point]:
    """The rows of Table 3 with the normal schedule from batch 16 on, its baseline first."""
    rows = [row for row in paper_table(3).rows if row.key[2] == "normal" and row.key[0] >= 16]
    return sorted(Point(row.gpus or 0, row.key[0], row.key[1], row.hours or 0, row.label) for row in rows)


def draw(group: Group) -> Figure | None:
    """Hours of the first point over those of each; None where nothing has finished."""
    ours, theirs = points_of(group), papers_points()
    if not ours:
        return None
    figure = new_figure(6, 4.6)
    axes = figure.subplots()
    sets = ((theirs, "paper", PAPER, "s", "none", 7), (ours, "ours", COLOURS[0], "o", COLOURS[0], 5))
    for points, name, colour, marker, face, size in sets:
        base = points[0]
        axes.plot(
            [point.gpus for point in points], [base.hours / point.hours for point in points], marker,
            color=colour, markerfacecolor=face, markeredgewidth=1.5, markersize=size,
            label=f"{name} (1: {base.label}, {base.gpus} GPUs, {base.hours:.3g} h)",
        )  # fmt: skip
        most = max(point.gpus for point in points)
        if most > base.gpus:
            axes.plot([base.gpus, most], [1, most / base.gpus], "--" if name == "ours" else ":", color=colour, lw=1)
    for gpus, speed, label in labels_of(ours):
        axes.annotate(label, (gpus, speed), xytext=(7, 0), textcoords="offset points", fontsize=7, va="center")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="GPUs", ylabel="speed-up (times)")
    dress(axes)
    legend_below(figure, axes)
    entitle(figure, "Speed-up of training against GPUs; lines: ideal", group)
    return figure


def labels_of(points: list[Point]) -> list[tuple[int, float, str]]:
    """GPUs, speed-up and text of each point's label; points that all but lie on each other share one."""
    near: list[list[Point]] = []
    for point in sorted(points, key=lambda point: (point.gpus, point.hours)):
        first = near[-1][0] if near else None
        if first and first.gpus == point.gpus and point.hours < 1.12 * first.hours:
            near[-1].append(point)
        else:
            near.append([point])
    return [(some[0].gpus, points[0].hours / some[0].hours, _names(some)) for some in near]


def _names(points: list[Point]) -> str:
    if len(points) > 2:
        return f"{points[0].label} and {len(points) - 1} more"
    return "; ".join(point.label for point in points)
