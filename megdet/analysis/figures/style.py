"""What all figures share: colours and marks that survive grey print and colour blindness, sizes, axes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

import pandas as pd

from megdet.analysis.commits import commits_text, of_several_commits
from megdet.analysis.comparable import Group
from megdet.analysis.setting_values import numbers_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print."""
MARKERS = "osD^vP*"
LINES = ("-", "--", ":", "-.")
"""Told apart by marker as well as colour; the next seven curves by line style, with the markers moved on by one."""
OURS, PAPER = COLOURS[0], "#8C8C8C"
"""Of bars and points; the paper's are also hatched or hollow."""


def line_style(place: int) -> tuple[str, str, str]:
    """Colour, marker and line of the curve at `place`: 28 that differ."""
    return COLOURS[place % 7], MARKERS[(place + place // 7) % 7], LINES[place // 7 % len(LINES)]


LEGEND_LINES, LEGEND_LINE = 3, 0.19
"""Lines of a legend that a figure has room for, and the height of one in inches."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, without pyplot: no display and no global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def dress(*all_axes: Axes) -> None:
    """Give axes the grid and frame that all figures have."""
    for axes in all_axes:
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def over_epochs(axes: Axes) -> None:
    """Label the x axis in whole epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


_LABELS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (2000, (1,)),
    (60, (1, 3)),
    (4, (1, 2, 5)),
    (0, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
)
"""On an axis whose end is more than so many times its beginning: what is labelled between two powers of ten."""


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic once all is drawn, with labels that do not run into each other.

    matplotlib labels the powers of ten alone, or nine marks between two of them, which have no room.
    """
    from matplotlib.ticker import LogLocator

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    subs = next(subs for times, subs in _LABELS if high > times * low)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def entitle(figure: Figure, title: str, group: Group, runs: pd.DataFrame) -> None:
    """Set the title: what the figure shows, of which group, and the commits of the `runs` where they differ."""
    texts = (title, group.title, _code_text(runs))
    figure.suptitle(
        "\n".join(line for text in texts if text for line in _lines(text, figure)), fontsize=9, parse_math=False
    )


def _code_text(runs: pd.DataFrame) -> str:
    changed = runs["dirty"].sum()
    parts = [commits_text(runs)] if of_several_commits(runs) else []
    if changed:
        parts.append(f"{changed} of {len(runs)} runs with uncommitted changes")
    return "; ".join(parts)


def _lines(text: str, figure: Figure) -> list[str]:
    """The text broken into lines that fit, after a semicolon if possible."""
    most = int(14.5 * figure.get_figwidth())
    parts = "; ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in text.split("; "))
    lines = textwrap.wrap(parts, most, break_long_words=False, break_on_hyphens=False)
    if max(map(len, lines)) > most:
        return textwrap.wrap(text, most)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def legend_below(figure: Figure, *all_axes: Axes) -> None:
    """One legend under the figure for all axes, each name once, in as many columns as fit.

    One of more than LEGEND_LINES lines makes the figure higher.
    """
    entries = {
        label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if entries:
        labels, handles = list(entries), list(entries.values())
        columns = max(1, min(len(labels), int(figure.get_figwidth() / (0.55 + 0.075 * max(map(len, labels))))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        more = -(-len(labels) // columns) - LEGEND_LINES
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * max(0, more))


def legend_beside(axes: Axes, *, title: str) -> None:
    """The legend of one panel of many, at its right."""
    axes.legend(title=title, loc="upper left", bbox_to_anchor=(1.01, 1.03), fontsize=8, title_fontsize=8, frameon=False,
                alignment="left")  # fmt: skip


def panel_height(entries: int) -> float:
    """The height in inches of a panel with room for a legend of `entries` beside it."""
    return max(1.8, 0.6 + LEGEND_LINE * entries)


def drops_of(runs: pd.DataFrame) -> list[float]:
    """Epochs done when the learning rate of any of the runs drops."""
    return sorted({epoch for text in runs["schedule.milestones"].dropna().unique() for epoch in numbers_in(text)})


def mark_drops(axes: Axes, runs: pd.DataFrame) -> None:
    """Dashed lines where the learning rate drops, over epochs."""
    for epoch in drops_of(runs):
        axes.axvline(epoch, color="0.6", linewidth=0.9, linestyle="--", zorder=0)


def seeds_label(runs: pd.DataFrame) -> str:
    """What a legend adds to a row's name: the number of seeds, and how many diverged or are not over."""
    diverged = (runs["status"] == "diverged").sum()
    unfinished = len(runs) - (runs["status"] == "finished").sum() - diverged
    if len(runs) == 1:
        return " (diverged)" if diverged else " (unfinished)" if unfinished else ""
    words = [f"{diverged} of {len(runs)} diverged" if diverged else f"{len(runs)} seeds"]
    return f" ({', '.join(words + [f'{unfinished} unfinished'] * bool(unfinished))})"
