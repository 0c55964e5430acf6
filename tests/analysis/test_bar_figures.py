from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megdet.analysis.figures import (
    bn_size,
    improvement,
    speed_up,
    training_time,
)
from tests.analysis.paper_runs import LONG, TINY, group_of
from tests.runs.fabricate import fabricate_run


def test_the_bars_are_the_hours_of_finished_runs_and_the_talks(tmp_path: Path) -> None:
    for seed, hours in enumerate((30.0, 32.0)):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, hours=hours)
    fabricate_run(tmp_path, {"batch": 256}, status="running", epochs=3)
    figure = training_time.draw(group_of(tmp_path))
    assert figure is not None
    ours, theirs = (
        {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in axes.patches} for axes in figure.axes
    )
    assert ours == pytest.approx({1: 31.0}) and theirs == pytest.approx({0: 33.2, 1: 39.5, 2: 11.2, 3: 4.1})
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["16, frozen BN *", "16, BN 16 (2 seeds)", "64, BN 16 *", "256, BN 16 *"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["31.0 (8 GPUs)"]


def test_a_row_on_two_numbers_of_gpus_has_a_bar_for_each(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, hours=30.0)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": 1, "gpus": 4}, hours=60.0)
    figure = training_time.draw(group_of(tmp_path))
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["60.0 (4 GPUs)", "30.0 (8 GPUs)"]
    assert [bar.get_width() for bar in figure.axes[1].patches] == [33.2, 11.2, 4.1]


def test_what_failed_in_the_paper_or_diverged_here_says_so_in_place_of_a_bar(tmp_path: Path) -> None:
    for batch, state in ((16, "finished"), (32, "finished"), (64, "diverged")):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 0}, status=state, epochs=None if state == "finished" else 2)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0, "seed": 1}, status="diverged", epochs=1)
    figure = improvement.draw(group_of(tmp_path))
    assert figure is not None
    ours, theirs = figure.axes
    names = [text.get_text() for text in ours.get_yticklabels()]
    assert names == ["32, frozen BN", "64, frozen BN (2 of 2 diverged)"]
    assert [text.get_text() for text in ours.texts] == ["+0.0", "diverged"]
    assert [text.get_text() for text in theirs.texts] == ["+0.2", "failed"]


def test_improvement_is_each_rows_mmAP_over_16_base_beside_the_papers(tmp_path: Path) -> None:
    for seed, (base, ours) in enumerate(((30.0, 33.0), (32.0, 34.0))):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, "seed": seed}, mmAP=base)
        fabricate_run(tmp_path, {"batch": 256, "bn_size": 16, "seed": seed, **LONG}, mmAP=ours)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, mmAP=1.0, status="running", epochs=3)
    figure = improvement.draw(group_of(tmp_path))
    assert figure is not None
    ours_axes, paper_axes = figure.axes
    assert [text.get_text() for text in ours_axes.get_yticklabels()] == ["256 (long), BN 16 (2 seeds)"]
    bar, band = ours_axes.patches
    assert bar.get_width() == pytest.approx(2.5) and paper_axes.patches[0].get_width() == pytest.approx(1.5)
    # Sample standard deviations: of (33, 34) and of (30, 32).
    whisker = ours_axes.collections[0].get_segments()[0]
    assert whisker[:, 0] == pytest.approx([2.5 - 0.5**0.5, 2.5 + 0.5**0.5])
    assert band.get_width() == pytest.approx(2 * 2**0.5)
    assert "16-base, 36.2 %" in str(figure.get_suptitle())


def test_without_16_base_the_smallest_frozen_run_is_the_baseline_and_the_title_says_so(tmp_path: Path) -> None:
    for batch, size, mmAP in ((8, 0, 10.0), (32, 0, 11.0), (8, 8, 2.0)):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": size, **TINY}, mmAP=mmAP)
    figure = improvement.draw(group_of(tmp_path))
    assert figure is not None and "over 8, frozen BN (10.0 %" in figure.get_suptitle()
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([-8.0, 1.0])


def test_a_row_that_learned_next_to_nothing_does_not_hide_what_others_gain(tmp_path: Path) -> None:
    """Of 256 one run ends below a tenth of the best, another above; of 64 both are poor, and shown."""
    for batch, size, mmAPs in ((16, 0, (40.0, 40.0)), (64, 16, (4.0, 5.0)), (256, 16, (3.9, 12.1))):
        for seed, mmAP in enumerate(mmAPs):
            fabricate_run(tmp_path, {"batch": batch, "bn_size": size, "seed": seed}, mmAP=mmAP)
    group = group_of(tmp_path)
    figure = improvement.draw(group)
    assert figure is not None and "collapsed: a run ended below a tenth of the best" in figure.get_suptitle()
    assert [text.get_text() for text in figure.axes[0].texts] == ["-35.5", "collapsed (8.0 %)"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([-35.5, 0.0])

    figure = bn_size.draw(group)
    assert figure is not None and "at the foot: rows of which a run ended below a tenth" in figure.get_suptitle()
    assert [text.get_text() for text in figure.axes[0].texts] == ["batch 256: 8.0"]
    (ours,) = figure.axes[0].containers
    assert list(ours.lines[0].get_ydata()) == [4.5] and figure.axes[0].get_ylim()[1] < 7
    # Where nothing else with BN is there, points are all that there is to see.
    alone = bn_size.draw(replace(group, frames=group.frames.where(group.runs["batch"] != 64)))
    assert alone is not None and "foot" not in alone.get_suptitle() and not alone.axes[0].texts


def test_nothing_improves_without_a_baseline(tmp_path: Path) -> None:
    for batch in (16, 32):
        fabricate_run(tmp_path, {"batch": batch})
    assert improvement.draw(group_of(tmp_path)) is None


def test_speed_up_is_against_16_base(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 2, "bn_size": 2}, hours=128.0)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, hours=32.0)
    assert {point.gpus for point in speed_up.points_of(group_of(tmp_path))} == {2, 8}
    fabricate_run(tmp_path, {"batch": 256}, hours=4.0)
    fabricate_run(tmp_path, {"batch": 256, "bn_size": 16, "gpus": 128, **LONG}, hours=1.0)
    figure = speed_up.draw(group_of(tmp_path))
    assert figure is not None
    ours, theirs = (
        {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
        for axes in figure.axes
    )
    assert ours["frozen BN"] == [(8, 1)] and ours["BN 2"] == [(2, 0.25)] and ours["BN 16"] == [(128, 8)]
    assert theirs["frozen BN"] == [(8, 1)] and (128, pytest.approx(33.2 / 4.1)) in theirs["BN 16"]


def test_one_number_of_gpus_gives_no_speed_up(tmp_path: Path) -> None:
    for batch in (16, 32):
        fabricate_run(tmp_path, {"batch": batch, "gpus": 8})
    assert speed_up.draw(group_of(tmp_path)) is None


def test_points_that_lie_on_each_other_share_a_label() -> None:
    points = [
        speed_up.Point(2, (batch, 16, "normal", 1.0), hours) for hours, batch in ((1.0, 32), (1.01, 16), (2.0, 8))
    ]
    assert [label for _, _, label in speed_up.labels_of(points)] == ["32, 16", "8"]


def test_mmAP_against_bn_size_is_a_line_per_batch_beside_the_papers(tmp_path: Path) -> None:
    for size, mmAP in ((2, 10.0), (16, 20.0)):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": size, **TINY}, mmAP=mmAP)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0, **TINY}, mmAP=99.0)
    figure = bn_size.draw(group_of(tmp_path))
    assert figure is not None
    ours, theirs = figure.axes
    (line,) = [line for line in ours.get_lines() if len(line.get_xdata()) == 2 and line.get_marker() != "_"]
    assert list(line.get_xdata()) == [2, 16] and list(line.get_ydata()) == [10, 20]
    assert theirs.get_ylim()[1] < 40 and not ours.get_shared_y_axes().joined(ours, theirs)


def test_the_whiskers_of_mmAP_against_bn_size_are_the_standard_deviation_over_the_seeds(tmp_path: Path) -> None:
    for seed, mmAP in enumerate((30.0, 31.0, 35.0)):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": 2, "seed": seed, **TINY}, mmAP=mmAP)
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 16, **TINY}, mmAP=36.0)
    figure = bn_size.draw(group_of(tmp_path))
    assert figure is not None and "whiskers: standard deviation over seeds" in figure.get_suptitle()
    whiskers = figure.axes[0].collections[0].get_segments()
    # The mean of the three is 32, their sample standard deviation the root of (4 + 1 + 9) / 2.
    assert list(whiskers[0][:, 1]) == pytest.approx([32 - 7**0.5, 32 + 7**0.5])
    assert not any(np.isfinite(segment).all() and len(segment) for segment in whiskers[1:]), "no whisker of one seed"
    assert "batch 16 (1 to 3 seeds)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_accuracies_that_are_all_but_equal_do_not_fill_the_panel(tmp_path: Path) -> None:
    for size, mmAP in ((2, 39.10), (16, 39.17)):
        fabricate_run(tmp_path, {"batch": 16, "bn_size": size, **TINY}, mmAP=mmAP)
    figure = bn_size.draw(group_of(tmp_path))
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert high - low == pytest.approx(2) and low + high == pytest.approx(2 * 39.135)


def test_batches_of_one_bn_size_stand_beside_each_other_around_its_tick(tmp_path: Path) -> None:
    for batch in (32, 64, 128):
        fabricate_run(tmp_path, {"batch": batch, "bn_size": 32, **TINY}, mmAP=30.0)
    figure = bn_size.draw(group_of(tmp_path))
    assert figure is not None
    places = sorted(
        x for line in figure.axes[0].get_lines() for x in line.get_xdata() if line.get_marker() in "osD^vP*"
    )
    assert places[0] < places[1] == 32 < places[2] < 45
