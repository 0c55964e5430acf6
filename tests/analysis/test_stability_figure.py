"""The picture of `megdet stability`: each rate that was tried is in it, in the row it belongs to."""

from __future__ import annotations

import pytest

from megdet.analysis.figures.stability import TriedRates, draw


def test_each_row_shows_what_was_tried_and_where_the_edge_is() -> None:
    rows = [
        TriedRates("batch=16", asked=0.02, stable=[0.02, 0.04], diverged=[0.08, 0.06]),
        TriedRates("batch=64", asked=0.08, stable=[], diverged=[0.08]),
    ]
    [axes] = draw(rows, "a title").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["batch=16", "batch=64"]
    assert axes.get_xscale() == "log" and axes.yaxis_inverted()
    dots = {
        (line.get_label(), round(float(line.get_ydata()[0]))): list(line.get_xdata())
        for line in axes.lines
        if line.get_linestyle() == "None" and len(line.get_xdata())
    }
    assert dots[("stable", 0)] == [0.02, 0.04] and dots[("diverged", 0)] == [0.08, 0.06]
    assert dots[("diverged", 1)] == [0.08] and dots[("as asked", 1)] == [0.08]
    bars = [(line.get_linestyle(), *map(float, line.get_xdata())) for line in axes.lines if len(line.get_xdata()) == 2]
    [stable] = [bar for bar in bars if bar[0] == "-"]
    assert stable[2] == 0.04  # up to the largest stable rate
    assert sorted(bar[1] for bar in bars if bar[0] == ":") == pytest.approx([0.06, 0.08])
