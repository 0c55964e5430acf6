"""The picture of one run: its loss and its mmAP over the epochs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from megdet.analysis.figures.loss import smoothed
from megdet.analysis.figures.style import COLOURS, dress, new_figure, over_epochs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_of(
    title: str, steps: pd.DataFrame, epochs: pd.DataFrame, *, planned_epochs: int, drops: Iterable[int]
) -> Figure:
    """At the left the loss of the logged steps (pale, under their means, where they are many), at the right mmAP, AP50.

    `drops`: epochs done when the learning rate drops.
    """
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    if len(steps):
        mean = smoothed(steps, epochs=planned_epochs)
        few = len(mean) == len(steps)
        raw = {"linewidth": 1.6} if few else {"linewidth": 0.7, "alpha": 0.35}
        left.plot(steps["epoch"], steps["loss"], color=COLOURS[0], label="each logged step", **raw)
        if not few:
            left.plot(mean["epoch"], mean["loss"], color=COLOURS[0], linewidth=1.6, label="mean of the steps before")
            left.legend(fontsize=8, frameon=False)
    left.set_ylabel("training loss")
    if len(epochs):
        for place, name in enumerate(("mmAP", "AP50")):
            colour, marker = COLOURS[place], "os"[place]
            right.plot(epochs.index, epochs[name].astype(float), color=colour, marker=marker, markersize=4, label=name)
        right.legend(fontsize=8, frameon=False)
    right.set_ylabel("validation images, percent")
    dress(left, right)
    for axes in (left, right):
        over_epochs(axes)
        axes.set_xlim(0, planned_epochs + 0.2)
        for epoch in drops:
            axes.axvline(epoch, color="0.6", linewidth=0.9, linestyle="--", zorder=0)
    figure.suptitle(title, fontsize=9)
    return figure
