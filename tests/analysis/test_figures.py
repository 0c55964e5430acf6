from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import make_figures
from analysis.comparable import comparable_groups
from analysis.make_figures import curves_of, validation_figure
from analysis.runs import load_runs
from tests.tracking.fabricate import fabricate_run

ROOT = Path(__file__).resolve().parents[2]


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
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    figure = validation_figure(group, curves_of(group))
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
    (group,) = comparable_groups(load_runs(str(tmp_path)))
    figure = validation_figure(group, curves_of(group))
    lines = [line for line in figure.axes[1].get_lines()]
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 28


def test_files_are_written_per_group_as_png_and_svg(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(tmp_path / "runs", {"batch": 16, "precision": "bf16"}, epochs=3, state="running")
    fabricate_run(tmp_path / "runs", {"batch": 16, "lr.base": 0.5}, epochs=0, state="failed")
    out = tmp_path / "out"
    assert make_figures.main(["--from", str(tmp_path / "runs"), "--out", str(out)]) == 0
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
