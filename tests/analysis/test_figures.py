from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from megdet.analysis import make_figures
from megdet.analysis.commits import commits_text
from megdet.analysis.comparable import Group
from megdet.analysis.frames import STEPS, load_runs
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import mirror
from tests.analysis.paper_runs import LONG, fabricate_tables, group_of
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


ROOT = Path(__file__).resolve().parents[2]


def test_files_are_written_per_group_as_png_and_svg(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_run(tmp_path / "runs", {"batch": 16, "precision": "bf16"}, epochs=3, status="running")
    fabricate_run(tmp_path / "runs", {"batch": 16, "lr.base": 0.5}, epochs=0, status="failed")
    out = tmp_path / "out"
    arguments = ["--from", str(tmp_path / "runs"), "--out", str(out), "--figure", "validation_curves"]
    assert make_figures.main(arguments) == 0
    names = [f"validation_curves{suffix}" for suffix in ("-2.png", "-2.svg", ".png", ".svg")]
    assert sorted(path.name for path in out.iterdir()) == names
    with Image.open(out / "validation_curves.png") as image:
        assert image.width >= 1500 and len(image.convert("RGB").getcolors(2**20) or []) > 20
    assert ElementTree.parse(out / "validation_curves.svg").getroot().tag.endswith("svg")


def test_without_a_curve_the_script_says_so_with_exit_code_2(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, epochs=0, status="running")
    command = [sys.executable, "analysis/make_figures.py", "--from", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "out").exists()
    assert done.stderr == "make_figures: no run has finished an epoch yet; a curve needs one\n"


def test_a_sweep_that_is_not_there_is_named_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16})
    assert make_figures.main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path), "sweep=table9"]) == 2
    assert capsys.readouterr().err == "make_figures: sweep=table9: no such run; no run has a sweep\n"


def test_figures_without_a_run_for_them_have_no_file_and_the_svgs_are_the_same_bytes_again(tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16, "bn_size": 0})
    fabricate_run(tmp_path / "runs", {"batch": 256, "bn_size": 16, **LONG})
    for out, figures in (("first", []), ("second", ["--figure", "loss", "--figure", "improvement"])):
        assert make_figures.main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path / out), *figures]) == 0
    names = set(make_figures.FIGURES) - {"proposals", "detections", "speed_up", "bn_size"}
    made = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert made == sorted(f"{name}.{suffix}" for name in names for suffix in ("png", "svg"))
    again = list((tmp_path / "second").glob("*.svg"))
    assert len(again) == 2
    for path in again:
        assert path.read_bytes() == (tmp_path / "first" / path.name).read_bytes()


def test_mlflow_gives_the_same_curves_of_steps_as_the_folder(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 16})
    uri = new_database(tmp_path)
    assert mirror(RunFolder(folder), uri, "megdet")
    ours, theirs = (load_runs(source, steps=STEPS).steps for source in (str(folder.parent), uri))
    assert len(theirs) > 50
    both = theirs.merge(ours, on="step", suffixes=("", "_ours"), validate="1:1")
    assert len(both) == len(theirs)
    for name in ("epoch", "lr", "loss"):
        assert list(both[name]) == pytest.approx(list(both[f"{name}_ours"]))


OF_STEPS = {"learning_rate", "loss"}
OF_EPOCHS = {"small_and_large", "validation_curves"}
BARS = {"training_time", "improvement"}


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        ([{"status": "running", "epochs": 0}], set()),
        ([{"status": "diverged", "epochs": 0}], set()),
        ([{"status": "diverged", "epochs": 1}], OF_STEPS | OF_EPOCHS),
        ([{"status": "failed", "epochs": 1}], OF_STEPS | OF_EPOCHS),
        ([{"mmAP": 0.0, "hours": 0.0}], OF_STEPS | OF_EPOCHS),
        ([{"mmAP": 0.0, "hours": 0.0}, {"mmAP": 0.0, "hours": 1.0}], OF_STEPS | OF_EPOCHS | BARS),
    ],
    ids=["begun", "diverged_at_once", "diverged", "failed", "found_nothing", "two_found_nothing"],
)
def test_each_figure_is_drawn_of_what_shows_something_in_it_and_of_nothing_else(
    tmp_path: Path, runs: list[dict[str, Any]], shown: set[str]
) -> None:
    for place, how in enumerate(runs):
        fabricate_run(tmp_path, {"batch": 16 * (place + 1), "bn_size": 0}, **how)
    group = group_of(tmp_path)
    figures = {name: draw(group) for name, draw in make_figures.FIGURES.items()}
    assert {name for name, figure in figures.items() if figure is not None} == shown
    for figure in figures.values():
        if figure is not None:
            drawn(figure)


@pytest.mark.parametrize("name", sorted(set(make_figures.FIGURES) - {"proposals", "detections"}))
def test_a_figure_of_several_commits_or_uncommitted_changes_says_so_and_no_other(two_commits: Group, name: str) -> None:
    draw = make_figures.FIGURES[name]
    title = title_of(draw(two_commits))
    assert "commits 8b3e1fc812 (" in title and "c0ffeec0ff (" in title and "uncommitted" not in title
    one = two_commits.frames.where(two_commits.runs["commit"].str.startswith("c0ffee"))
    assert "commit" not in title_of(draw(replace(two_commits, frames=one)))
    dirty = replace(one, runs=one.runs.assign(dirty=True))
    title = title_of(draw(replace(two_commits, frames=dirty)))
    assert "runs with uncommitted changes" in title and "commits" not in title


def test_a_figure_names_the_commits_of_the_runs_that_it_shows_alone(two_commits: Group) -> None:
    runs = two_commits.runs.copy()
    runs["commits"] = runs["commits"].where(
        runs["schedule"] != "long", pd.Series([("c0ffee",)] * len(runs), runs.index)
    )
    group = replace(two_commits, frames=replace(two_commits.frames, runs=runs))
    assert "commit" not in title_of(make_figures.FIGURES["long_policy"](group))
    assert "commits" in title_of(make_figures.FIGURES["validation_curves"](group))


def test_commits_are_shortened_and_a_release_is_named_whole(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16, "bn_size": 0}, commit="v0.2.0.dev0")
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 0}, commit="c0ffee" * 6 + "c0ff")
    assert commits_text(group_of(tmp_path).runs) == "commits c0ffeec0ff (1 run), v0.2.0.dev0 (1 run)"


@pytest.fixture(scope="module")
def two_commits(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Runs for every figure; of each row, a seed of one commit and one of another."""
    folder = tmp_path_factory.mktemp("commits")
    for seed, commit in enumerate(("c0ffee" * 6 + "c0ff", "8b3e1fc812" * 4)):
        for asked in ({"batch": 16, "bn_size": 0}, {"batch": 256, "bn_size": 16}, {"batch": 16, "bn_size": 16, **LONG}):
            fabricate_run(folder, {**asked, "seed": seed}, commit=commit)
    return group_of(folder)


def title_of(figure: Figure | None) -> str:
    assert figure is not None
    return str(figure.get_suptitle()).replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(make_figures.FIGURES) - {"proposals", "detections"}))
def test_every_figure_of_all_rows_of_the_tables_has_room_for_its_parts(whole_tables: Group, name: str) -> None:
    figure = make_figures.FIGURES[name](whole_tables)
    assert figure is not None
    drawn(figure)
    width, height = figure.get_size_inches()
    assert width <= 11 and height <= 14
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert box.width > 0.2 * width * figure.dpi and box.height > 1.2 * figure.dpi


@pytest.fixture(scope="module")
def whole_tables(tmp_path_factory: pytest.TempPathFactory) -> Group:
    folder = tmp_path_factory.mktemp("whole")
    fabricate_tables(folder)
    return group_of(folder)


def drawn(figure: Figure) -> None:
    """Draw it: what has no room for its parts, or no finite limits, is a warning, and an error here."""
    FigureCanvasAgg(figure).draw()
