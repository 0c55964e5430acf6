from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import make_figures
from analysis.comparable import Group, comparable_groups
from analysis.figures import bn_size, learning_rate, long_policy, loss, speed_up, training_time, validation
from analysis.figures.validation import curves_of
from analysis.runs import CURVES, STEP_CURVES, load_runs
from megdet.tracking.mlflow import mirror
from tests.analysis.test_tables import LONG, TINY
from tests.tracking.databases import new_database
from tests.tracking.fabricate import fabricate_run

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

ROOT = Path(__file__).resolve().parents[2]


def group_of(runs: Path) -> Group:
    (group,) = comparable_groups(load_runs(str(runs)))
    return group


def test_a_curve_is_the_mean_over_the_seeds_that_reached_the_epoch(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=33.0, hours=11)
    fabricate_run(tmp_path, {"batch": 16, "seed": 1}, mmAP=44.0, hours=22, state="running", epochs=2)
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    (curve,) = curves_of(group)
    assert curve.label == "16, BN 16" and curve.seeds == 2
    assert curve.epochs == list(range(1, 12))
    assert curve.mean == pytest.approx([3.5, 7.0, *(3.0 * epoch for epoch in range(3, 12))])
    assert curve.low[0] == pytest.approx(3) and curve.high[0] == pytest.approx(4)
    assert curve.hours[:3] == pytest.approx([1.5, 3.0, 3.0])


def test_the_figure_shows_each_row_over_epochs_and_hours_with_the_drops_dashed(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=33.0, hours=11)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, state="diverged", epochs=2)
    figure = validation.draw(group_of(tmp_path))
    assert figure is not None
    by_epoch, by_hours = figure.axes
    dashed = [line for line in by_epoch.get_lines() if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [8, 10]
    ours = next(line for line in by_hours.get_lines() if line.get_label() == "16, BN 16")
    np.testing.assert_allclose(ours.get_xdata(), np.arange(1, 12))
    np.testing.assert_allclose(ours.get_ydata(), 3 * np.arange(1, 12))
    crosses = [line for line in by_epoch.get_lines() if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["16, BN 16", "64, frozen BN"]


def test_no_two_of_28_curves_look_the_same(tmp_path: Path) -> None:
    for batch in range(16, 16 + 14):
        for scale in (0.5, 1.0):
            fabricate_run(tmp_path, {"batch": batch, "bn_size": 0, "lr.scale": scale, "gpus": 1}, epochs=2)
    figure = validation.draw(group_of(tmp_path))
    assert figure is not None
    lines = [line for line in figure.axes[1].get_lines()]
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 28


def test_files_are_written_per_group_as_png_and_svg(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(tmp_path / "runs", {"batch": 16, "precision": "bf16"}, epochs=3, state="running")
    fabricate_run(tmp_path / "runs", {"batch": 16, "lr.base": 0.5}, epochs=0, state="failed")
    out = tmp_path / "out"
    arguments = ["--from", str(tmp_path / "runs"), "--out", str(out), "--figure", "validation_curves"]
    assert make_figures.main(arguments) == 0
    names = [f"validation_curves{suffix}" for suffix in ("-2.png", "-2.svg", ".png", ".svg")]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / "validation_curves.png") as image:
        assert image.width >= 1500 and len(image.convert("RGB").getcolors(2**20) or []) > 20
    assert ElementTree.parse(out / "validation_curves.svg").getroot().tag.endswith("svg")


def test_without_a_curve_the_script_says_so_with_exit_code_2(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, epochs=0, state="running")
    command = [sys.executable, "analysis/make_figures.py", "--from", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "out").exists()
    assert done.stderr == "make_figures: no run has finished an epoch yet; a curve needs one\n"


def test_all_figures_have_files_and_the_svgs_are_the_same_bytes_again(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(tmp_path / "runs", {"batch": 16, **LONG})
    for out in ("first", "second"):
        assert make_figures.main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path / out)]) == 0
    made = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert made == sorted(f"{name}.{suffix}" for name in make_figures.FIGURES for suffix in ("png", "svg"))
    for path in (tmp_path / "first").glob("*.svg"):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


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


def test_the_bars_are_the_hours_of_finished_runs_and_the_talks(tmp_path: Path) -> None:
    for seed, hours in enumerate((30.0, 32.0)):
        fabricate_run(tmp_path, {"batch": 16, "seed": seed}, hours=hours)
    fabricate_run(tmp_path, {"batch": 256}, state="running", epochs=3)
    figure = training_time.draw(group_of(tmp_path))
    assert figure is not None
    ours, theirs = ([bar.get_width() for bar in axes.patches] for axes in figure.axes)
    assert ours == pytest.approx([31.0]) and theirs == [33.2, 11.2, 4.1]
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == [
        "16-batch\n8 GPUs", "64-batch\n32 GPUs", "256-batch\n128 GPUs"
    ]  # fmt: skip


def test_speed_up_is_against_the_run_on_the_fewest_gpus(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, hours=32.0)
    fabricate_run(tmp_path, {"batch": 256}, hours=4.0)
    fabricate_run(tmp_path, {"batch": 256, "bn_size": 16, "gpus": 128, **LONG}, hours=1.0)
    figure = speed_up.draw(group_of(tmp_path))
    assert figure is not None
    sets = {str(line.get_label()).partition(" ")[0]: line for line in figure.axes[0].get_lines()}
    assert list(sets["ours"].get_xdata()) == [8, 128] and list(sets["ours"].get_ydata()) == [1, 8]
    assert max(sets["paper"].get_ydata()) == pytest.approx(33.2 / 4.1)


def test_points_that_lie_on_each_other_share_a_label() -> None:
    points = [speed_up.Point(2, 16, 0, hours, label) for hours, label in ((1.0, "a"), (1.01, "b"), (2.0, "c"))]
    assert [label for _, _, label in speed_up.labels_of(points)] == ["a; b", "c"]


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


def test_the_learning_rate_has_one_curve_per_batch_whatever_the_bn_size(tmp_path: Path) -> None:
    for size in (0, 16):
        fabricate_run(tmp_path, {"batch": 32, "bn_size": size})
    fabricate_run(tmp_path, {"batch": 16})
    figure = learning_rate.draw(group_of(tmp_path))
    assert figure is not None
    curves = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert sorted(map(str, curves)) == ["batch 16", "batch 32"]
    assert max(curves["batch 32"].get_ydata()) == pytest.approx(0.04)
    assert min(curves["batch 32"].get_ydata()) == pytest.approx(0.0004)


def test_loss_curves_end_in_a_cross_where_training_diverged(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, state="diverged", epochs=2)
    figure = loss.draw(group_of(tmp_path))
    assert figure is not None
    lines = figure.axes[0].get_lines()
    assert [line.get_xdata()[0] for line in lines if line.get_marker() == "x"] == [2]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["16, BN 16", "64, frozen BN (1 of 1 diverged)"]


def test_a_loss_that_is_not_finite_is_no_point_and_many_steps_are_averaged() -> None:
    steps = tuple({"epoch": step / 100, "loss": float(step)} for step in range(1, 201))
    points = loss.smoothed((*steps, {"epoch": 3.0, "loss": None}))
    assert len(points) == 100 and points[0] == (0.02, 1.5) and points[-1] == (2.0, 199.5)


def test_mlflow_gives_the_same_curves_of_steps_as_the_folder(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 16})
    uri = new_database(tmp_path)
    assert mirror(folder, uri, "megdet")
    (ours,), (theirs,) = (load_runs(source, curves=CURVES + STEP_CURVES) for source in (str(folder.parent), uri))
    assert len(theirs.steps) > 50
    known = {line["step"]: line for line in ours.steps}
    for line in theirs.steps:
        for name in ("epoch", "lr", "loss"):
            assert line[name] == pytest.approx(known[line["step"]][name])
