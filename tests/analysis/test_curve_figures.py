from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from megdet.analysis.comparable import Group
from megdet.analysis.figures import (
    learning_rate,
    long_policy,
    loss,
    small_and_large,
    validation,
)
from megdet.analysis.figures.curves import curves_of
from megdet.analysis.figures.panels import panels_of
from megdet.analysis.paper import paper_rows
from megdet.analysis.rows import RowKey
from tests.analysis.paper_runs import LONG, TINY, fabricate_tables, group_of
from tests.runs.fabricate import fabricate_run

ROWS = sorted({row.key for row in paper_rows("table2", "table3")})


def labels_of(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [text.get_text() for text in figure.legends[0].get_texts()]


def crosses_of(axes: Axes) -> list[float]:
    return [x for line in axes.get_lines() if line.get_marker() == "x" for x in line.get_xdata()]


def test_a_curve_is_the_mean_over_the_seeds_that_reached_the_epoch(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=33.0, hours=11)
    fabricate_run(tmp_path, {"batch": 16, "seed": 1}, mmAP=44.0, hours=22, status="running", epochs=2)
    (curve,) = curves_of(group_of(tmp_path)).values()
    assert curve.label == "16, BN 16 (2 seeds, 1 unfinished)"
    assert list(curve.mean["epoch"]) == list(range(1, 12))
    means = [3.5, 7.0, *(3.0 * epoch for epoch in range(3, 12))]
    assert list(curve.mean["mmAP"]) == pytest.approx(means)
    # The sample standard deviation of (3, 4) and (6, 8); one seed has none.
    assert list(curve.mean["spread"]) == pytest.approx([0.5**0.5, 2**0.5, *([0.0] * 9)])
    assert list(curve.mean["hours"][:3]) == pytest.approx([1.5, 3.0, 3.0])


def test_a_seed_that_diverged_is_a_cross_and_no_part_of_the_mean(tmp_path: Path) -> None:
    for seed, mmAP in enumerate((30.0, 40.0)):
        fabricate_run(tmp_path, {"batch": 32, "bn_size": 0, "seed": seed}, mmAP=mmAP)
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0, "seed": 2}, mmAP=11.0, status="diverged", epochs=2)
    (curve,) = curves_of(group_of(tmp_path)).values()
    assert curve.label == "32, frozen BN (1 of 3 diverged)"
    assert list(curve.mean["mmAP"]) == pytest.approx([35 * epoch / 11 for epoch in range(1, 12)])
    assert curve.diverged[["epoch", "mmAP"]].to_numpy().tolist() == [[2, pytest.approx(2.0)]]


def test_a_row_that_diverged_before_its_first_evaluation_is_in_the_legend(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=0)
    assert validation.draw(group_of(tmp_path)) is None
    fabricate_run(tmp_path, {"batch": 16})
    figure = validation.draw(group_of(tmp_path))
    assert labels_of(figure) == ["16, BN 16", "64, frozen BN (diverged)"]


def test_the_figure_shows_each_row_over_epochs_and_hours_with_the_drops_dashed(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=33.0, hours=11)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=2)
    figure = validation.draw(group_of(tmp_path))
    assert figure is not None
    by_epoch, by_hours = figure.axes
    dashed = [line for line in by_epoch.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [8, 10]
    ours = next(line for line in by_hours.get_lines() if line.get_label() == "16, BN 16")
    np.testing.assert_allclose(ours.get_xdata(), np.arange(1, 12))
    np.testing.assert_allclose(ours.get_ydata(), 3 * np.arange(1, 12))
    assert crosses_of(by_epoch) == [2]
    assert labels_of(figure) == ["16, BN 16", "64, frozen BN (diverged)"]
    assert "a cross: training diverged" in figure.get_suptitle() and "band" not in figure.get_suptitle()


def test_the_band_of_a_curve_is_the_standard_deviation_over_the_seeds_and_the_title_says_so(tmp_path: Path) -> None:
    for seed, mmAP in enumerate((33.0, 44.0)):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, mmAP=mmAP)
    figure = validation.draw(group_of(tmp_path))
    assert figure is not None and "band: standard deviation over seeds" in figure.get_suptitle()
    (band,) = figure.axes[0].collections
    ends = band.get_paths()[0].vertices
    # At the last epoch: the mean of 33 and 44, and their sample standard deviation.
    assert max(ends[:, 1]) == pytest.approx(38.5 + 11 / 2**0.5)


@pytest.mark.parametrize("keys", [ROWS[:7], ROWS, [(b, 0, "normal", s) for b in range(16, 30) for s in (0.5, 1.0)]])
def test_no_two_curves_of_a_panel_look_the_same_and_every_row_is_in_one(keys: list[RowKey]) -> None:
    panels = panels_of(keys)
    assert sorted(key for panel in panels for key in panel.styles) == sorted(keys)
    for panel in panels:
        assert len(set(panel.styles.values())) == len(panel.styles)


def test_the_rows_of_tables_2_and_3_are_split_by_bn_size_and_a_batch_keeps_its_colour() -> None:
    panels = panels_of(ROWS)
    assert [panel.title for panel in panels] == ["frozen BN", "BN 2, 4, 8", "BN 16", "BN 32", "BN 64"]
    looks = {(key[0], style[:2]) for panel in panels for key, style in panel.styles.items()}
    assert len(looks) == len({key[0] for key in ROWS}) == 8
    lines = {key[2]: style[2] for panel in panels for key, style in panel.styles.items() if key[3] == 1}
    assert lines["normal"] == "-" != lines["long"]


def test_small_bn_sizes_of_one_batch_do_not_share_a_panel_where_they_would_look_the_same() -> None:
    small: list[RowKey] = [(16, size, "normal", 1.0) for size in (2, 4, 8)]
    frozen: list[RowKey] = [(batch, 0, "normal", 1.0) for batch in (2, 4, 8, 16, 32)]
    assert [panel.title for panel in panels_of([*small, *frozen])] == ["frozen BN", "BN 2", "BN 4", "BN 8"]


def test_figure_1_has_the_papers_rows_of_many_and_where_the_papers_ended(tmp_path: Path) -> None:
    for batch, size in ((16, 0), (16, 16), (64, 16), (256, 16), (256, 32), (2, 2)):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": size}, mmAP=36.0, hours=8.0)
    figure = small_and_large.draw(group_of(tmp_path))
    rows = ["16, frozen BN", "256, BN 16"]
    assert labels_of(figure) == rows + [f"{row} (paper, last epoch)" for row in rows]
    assert figure is not None
    ends = {str(line.get_label()): (line.get_xdata()[-1], line.get_ydata()[-1]) for line in figure.axes[1].get_lines()}
    assert ends["256, BN 16"] == pytest.approx((8, 36)) and ends["256, BN 16 (paper, last epoch)"] == (4.1, 37.1)
    assert ends["16, frozen BN (paper, last epoch)"] == (33.2, 36.2)


def test_figure_1_of_other_data_has_the_papers_numbers_in_a_panel_of_their_own(tmp_path: Path) -> None:
    for batch in (16, 32):
        fabricate_run(tmp_path, {"batch": batch, **TINY}, mmAP=12.0)
    figure = small_and_large.draw(group_of(tmp_path))
    assert labels_of(figure) == ["16, BN 16", "32, BN 16"]
    assert figure is not None
    _, by_hours, apart = figure.axes
    assert max(y for line in by_hours.get_lines() for y in line.get_ydata()) == pytest.approx(12)
    assert "COCO" in apart.get_title()
    assert [list(line.get_ydata()) for line in apart.get_lines()] == [[36.2], [37.1]]
    low, high = apart.get_ylim()
    assert low == 0 and high > 38, "from zero, as ours"


A: RowKey = (16, 0, "normal", 1.0)


B: RowKey = (16, 16, "normal", 1.0)


C: RowKey = (64, 16, "normal", 1.0)


D: RowKey = (8, 8, "normal", 1.0)


E: RowKey = (256, 32, "normal", 1.0)


@pytest.mark.parametrize(
    "there, shown",
    [
        ([], []),
        ([B], [B]),
        ([A, B], [B]),  # of one batch the row with BN
        ([A, C, B], [B, C]),  # they differ in the batch alone
        ([D, E], [D, E]),
        ([D, E, B, C], [B, C]),
        ([(16, 16, "long", 1.0), B], [B]),
        ([(64, 0, "normal", 0.5), (64, 0, "normal", 1.0), D], [D, (64, 0, "normal", 1.0)]),
    ],
)
def test_without_the_papers_rows_the_smallest_and_largest_batch_stand_for_them(
    there: list[RowKey], shown: list[RowKey]
) -> None:
    assert small_and_large.small_and_large(there, [A, (256, 16, "normal", 1.0)]) == shown


def test_figure_4_has_the_long_runs_alone_with_its_decays_dashed_and_the_papers_last_points(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    assert long_policy.draw(group_of(tmp_path)) is None
    for batch in (16, 256):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 16, **LONG}, mmAP=36.0)
    figure = long_policy.draw(group_of(tmp_path))
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert [line.get_xdata()[0] for line in lines if line.get_linestyle() == "--"] == [11, 14, 17]
    ends = {str(line.get_label()): (line.get_xdata()[-1], line.get_ydata()[-1]) for line in lines}
    assert ends["16 (long), BN 16"] == pytest.approx((18, 36)) and "16, BN 16" not in ends
    assert ends["256 (long), BN 16 (paper, last epoch)"] == (18, 37.7)


def test_figure_4_of_other_data_has_the_papers_numbers_in_words(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16, **LONG, **TINY}, mmAP=12.0)
    figure = long_policy.draw(group_of(tmp_path))
    assert figure is not None and "37.7 % (256 (long), BN 16)" in figure.get_suptitle().replace("\n", " ")
    assert labels_of(figure) == ["16 (long), BN 16"]


def test_the_learning_rate_has_one_curve_per_batch_whatever_the_bn_size(tmp_path: Path) -> None:
    for size in (0, 16):
        fabricate_run(tmp_path, {"batch": 32, "bn_size": size})
    fabricate_run(tmp_path, {"batch": 16})
    figure = learning_rate.draw(group_of(tmp_path))
    assert figure is not None
    curves = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert sorted(map(str, curves)) == ["batch 16", "batch 32"]
    assert len(figure.axes) == 1 and figure.axes[0].get_title() == "normal schedule"
    assert max(curves["batch 32"].get_ydata()) == pytest.approx(0.04)
    assert min(curves["batch 32"].get_ydata()) == pytest.approx(0.0004)


def test_loss_curves_end_in_a_cross_where_training_diverged(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=2)
    figure = loss.draw(group_of(tmp_path))
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert [line.get_xdata()[0] for line in lines if line.get_marker() == "x"] == [2]
    assert labels_of(figure) == ["16, BN 16", "64, frozen BN (diverged)"]


def test_a_run_that_diverged_before_its_first_logged_step_is_a_cross_at_the_left_edge(tmp_path: Path) -> None:
    for batch in (128, 256):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 0}, status="diverged", epochs=0)
    assert loss.draw(group_of(tmp_path)) is None
    fabricate_run(tmp_path, {"batch": 16})
    figure = loss.draw(group_of(tmp_path))
    assert figure is not None
    axes = figure.axes[0]
    assert labels_of(figure) == ["16, BN 16", "128, frozen BN (diverged)", "256, frozen BN (diverged)"]
    assert crosses_of(axes) == [0, 0] and "at the left edge: before the first logged step" in figure.get_suptitle()
    heights = [y for line in axes.get_lines() if line.get_marker() == "x" for y in line.get_ydata()]
    assert heights[0] == axes.get_ylim()[1] and axes.get_ylim()[0] < heights[1] < heights[0], "beside each other"


def test_a_loss_that_explodes_leaves_the_others_readable(tmp_path: Path) -> None:
    fabricate_tables(tmp_path, seeds=1, only=[(16, 0, "normal", 1.0), (64, 0, "normal", 1.0)])
    figure = loss.draw(group_of(tmp_path))
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    sound = [y for line in figure.axes[0].get_lines() if line.get_label() == "16, frozen BN" for y in line.get_ydata()]
    assert low < min(sound) and max(sound) < high < 3 * max(sound)
    (cross,) = (line for line in figure.axes[0].get_lines() if line.get_marker() == "x")
    assert list(cross.get_ydata()) == [high] and not cross.get_clip_on()


STEPS = pd.DataFrame({"epoch": [step / 100 for step in range(1, 201)], "loss": [float(step) for step in range(1, 201)]})


def test_many_steps_are_averaged() -> None:
    points = loss.smoothed(STEPS, epochs=2)
    assert len(points) == 50
    assert list(points.iloc[0]) == [0.04, 2.5] and list(points.iloc[-1]) == [2.0, 198.5]


def test_a_run_that_is_not_over_is_averaged_over_as_many_steps_as_one_that_is() -> None:
    assert loss.smoothed(STEPS[:20], epochs=2).equals(loss.smoothed(STEPS, epochs=2)[:5])


def test_a_loss_that_is_not_finite_is_no_point(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {"batch": 16})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    whole = points_of(group_of(tmp_path))
    places = [place for place, line in enumerate(lines) if '"kind": "step"' in line]
    for place in places[5:9]:
        lines[place] = json.dumps(json.loads(lines[place]) | {"loss": None})
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    lost = points_of(group_of(tmp_path))
    assert len(places) == 110 and (len(whole), len(lost)) == (37, 36), (
        "of 110 steps, and of 106: each three are a point"
    )
    assert np.isfinite(lost).all()


def points_of(group: Group) -> list[float]:
    """The losses of the only curve."""
    figure = loss.draw(group)
    assert figure is not None
    return next(list(line.get_ydata()) for line in figure.axes[0].get_lines() if line.get_label() == "16, BN 16")


@pytest.mark.parametrize("least, longest", [(0.025, 0.55), (0.25, 4.1), (1.0, 90.0), (1.0, 900.0)])
def test_labels_of_hours_on_a_logarithmic_axis_do_not_run_into_each_other(
    tmp_path: Path, least: float, longest: float
) -> None:
    for place, (batch, hours) in enumerate([(16, longest), (32, least), (64, longest / 2)]):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 16, "seed": place}, mmAP=33.0, hours=hours)
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 0, "seed": place}, mmAP=33.0, hours=hours)
    figure = validation.draw(group_of(tmp_path))
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[-1]
    assert axes.get_xscale() == "log"
    labels = [label for label in axes.get_xticklabels(which="both") if label.get_text() and label.get_visible()]
    low, high = axes.get_xlim()
    shown = [label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high]
    assert len(shown) > 2
    for left, right in itertools.pairwise(sorted(shown, key=lambda box: box.x0)):
        assert left.x1 < right.x0
