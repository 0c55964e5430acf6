from __future__ import annotations

from megdet.analysis.figures.panels import styles_by_batch
from megdet.analysis.figures.style import legend_below, new_figure
from megdet.analysis.rows import RowKey


def keys_of(batches: int, scales: int) -> list[RowKey]:
    return [(16 * 2**batch, 0, "normal", 2.0**-scale) for batch in range(batches) for scale in range(scales)]


def test_rows_that_differ_in_batch_schedule_or_scale_look_different_however_many_scales_there_are() -> None:
    for batches, scales in ((7, 4), (5, 5), (4, 6)):
        styles = styles_by_batch(keys_of(batches, scales))
        assert len(set(styles.values())) == len(styles) == batches * scales


def test_few_scales_leave_a_batch_its_colour() -> None:
    styles = styles_by_batch(keys_of(5, 4))
    assert len({style[:2] for key, style in styles.items() if key[0] == 16}) == 1


def test_a_long_legend_makes_the_figure_higher() -> None:
    for curves, higher in ((2, False), (40, True)):
        figure = new_figure(6, 4)
        axes = figure.subplots()
        for place in range(curves):
            axes.plot([0, 1], label=f"a curve with a name of its own, {place}")
        legend_below(figure, axes)
        assert (figure.get_figheight() > 4) == higher
