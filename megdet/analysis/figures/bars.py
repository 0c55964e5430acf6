"""Bar charts of ours and the paper's, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megdet.analysis.figures.style import OURS, PAPER, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Length:
    """The length of a bar, the text at its end, and the spread over seeds."""

    value: float
    text: str
    spread: float = 0.0


FAILED = Length(0.0, "failed")
"""What the paper says of a training without a result."""


@dataclass(frozen=True)
class Bar:
    """A row; None where it has not been run, or the paper does not have it."""

    label: str
    ours: Length | None
    theirs: Length | None


def draw_bars(bars: Sequence[Bar], *, xlabel: str, one_scale: bool) -> Figure:
    """Ours in the left panel, the paper's in the right one, rows at the same height; `one_scale`: on the same axis."""
    figure = new_figure(9, 1.3 + 0.3 * len(bars))
    panels = figure.subplots(1, 2, sharey=True, sharex=one_scale, width_ratios=(3, 2) if not one_scale else (1, 1))
    _draw(panels[0], [bar.ours for bar in bars], title="ours", colour=OURS, hatch="")
    _draw(panels[1], [bar.theirs for bar in bars], title="paper", colour=PAPER, hatch="///")
    panels[0].set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=8)
    panels[0].set_ylim(len(bars) - 0.4, -0.6)
    for axes in panels:
        axes.set_xlabel(xlabel)
    return figure


def _draw(axes: Axes, lengths: Sequence[Length | None], *, title: str, colour: str, hatch: str) -> None:
    for place, length in enumerate(lengths):
        if length:
            axes.barh([place], [length.value], height=0.7, color=colour, hatch=hatch, edgecolor="white")
            if length.spread:
                axes.errorbar([length.value], [place], xerr=[length.spread], color="black", capsize=2.5, linewidth=1)
            outwards = 1 if length.value >= 0 else -1
            axes.annotate(
                length.text, (length.value + outwards * length.spread, place), xytext=(5 * outwards, 0),
                textcoords="offset points", va="center", ha="left" if outwards > 0 else "right", fontsize=8,
            )  # fmt: skip
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.35)  # for the texts
    axes.locator_params(axis="x", nbins=6)  # more run into those of the panel beside
    dress(axes)
    axes.grid(visible=False, axis="y")
