from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from megdet.analysis import make_figures
from megdet.analysis.figures import detections, proposals
from megdet.analysis.figures.pictures import RESOLUTION, WIDTH, with_jpegs
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import mirror
from megdet.training.drawing import detections_drawn, draw_proposals, save_picture
from tests.analysis.paper_runs import group_of
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def fabricate_pictures(
    folder: Path, *, epochs: tuple[int, ...] = (1, 6, 11), positive: tuple[int, ...] = (9, 2)
) -> None:
    """Three pictures of detections, and one of proposals per epoch and number of positive ones, in files by number."""
    for place in range(3):
        image = np.full((60, 80 - 30 * place, 3), 60 * (place + 1), np.uint8)
        save_picture(
            detections_drawn(
                image,
                boxes=np.zeros((0, 4)),
                labels=[],
                scores=[],
                names=[],
            ),
            folder / "pictures" / f"detections-{place}.png",
        )
    boxes = np.tile([10.0, 10.0, 40.0, 40.0], (64, 1))
    for epoch in epochs:
        for place, count in enumerate(positive):
            path = folder / "pictures" / f"proposals-epoch{epoch:02}-{place}.png"
            image = np.full((60, 80, 3), 100, np.uint8)
            draw_proposals(image, path, positive=boxes[:count], negative=boxes[count:])


def titles_of(axes: list[Axes]) -> list[str]:
    return [each.get_title() for each in axes]


def images_in(figure: Figure) -> int:
    return sum(len(axes.get_images()) for axes in figure.axes)


def test_figure_5_is_of_the_best_finished_run_that_has_pictures(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 32}, mmAP=39.0)
    fabricate_run(tmp_path, {"batch": 8, "bn_size": 8}, mmAP=0.0)
    assert detections.draw(group_of(tmp_path)) is None
    for batch, mmAP in ((16, 37.0), (64, 36.0)):
        fabricate_pictures(fabricate_run(tmp_path, {"batch": batch}, mmAP=mmAP))
    fabricate_pictures(fabricate_run(tmp_path, {"batch": 128}, mmAP=99.0, epochs=4, status="running"))
    figure = detections.draw(group_of(tmp_path))
    assert figure is not None
    assert "16, BN 16, seed 0: mmAP 37.0 %" in figure.get_suptitle() and images_in(figure) == 3
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert [int(np.asarray(image)[5, 5, 0]) for image in shown] == [60, 120, 180], "each picture, in order, as it is"
    assert max(max(np.asarray(image).shape) for image in shown) == round(WIDTH * RESOLUTION)


def test_figure_2_has_a_row_per_epoch_with_the_fewest_positives_first_under_their_numbers(tmp_path: Path) -> None:
    assert proposals.draw(group_of(fabricate_run(tmp_path, {"batch": 64}).parent)) is None
    for batch, positive in ((16, (9, 2, 5)), (256, (16, 4, 8))):
        fabricate_pictures(fabricate_run(tmp_path, {"batch": batch, "bn_size": 16}), positive=positive)
    figure = proposals.draw(group_of(tmp_path))
    assert figure is not None
    small, large = figure.subfigs
    assert small.get_suptitle() == "16, BN 16, seed 0" and large.get_suptitle() == "256, BN 16, seed 0"
    assert titles_of(small.axes) == 3 * ["2 : 62", "5 : 59", "9 : 55"]
    assert titles_of(large.axes) == 3 * ["4 : 60", "8 : 56", "16 : 48"]
    assert [axes.get_ylabel() for axes in small.axes[::3]] == ["epoch 1", "epoch 6", "epoch 11"]


def test_a_run_with_fewer_pictures_leaves_its_places_empty(tmp_path: Path) -> None:
    fabricate_pictures(fabricate_run(tmp_path, {"batch": 16}), positive=(9, 2, 5, 7))
    running = fabricate_run(tmp_path, {"batch": 256, "bn_size": 16}, status="running", epochs=1)
    fabricate_pictures(running, epochs=(1,), positive=(3,))
    figure = proposals.draw(group_of(tmp_path))
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    small, large = figure.subfigs
    assert len(small.axes) == 12 and titles_of(large.axes) == ["3 : 61", "", "", ""]
    assert images_in(figure) == 13 and not any(axes.xaxis.get_ticklocs().size for axes in figure.axes)


def test_a_picture_without_numbers_is_shown_without_a_title(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {"batch": 16})
    (folder / "pictures").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "pictures" / "proposals-epoch01-5.png")
    figure = proposals.draw(group_of(tmp_path))
    assert figure is not None and titles_of(list(figure.axes)) == [""] and images_in(figure) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_damaged_picture_is_left_out_with_a_line_and_stops_no_figure(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate_run(tmp_path, {"batch": 16})
    fabricate_pictures(folder)
    for kind, draw in (("detections", detections.draw), ("proposals", proposals.draw)):
        first, *others = sorted((folder / "pictures").glob(f"{kind}-*.png"))
        first.write_bytes(first.read_bytes()[: int(share * first.stat().st_size)])
        figure = draw(group_of(tmp_path))
        assert figure is not None and images_in(figure) == len(others)
        assert capsys.readouterr().err.startswith(f"left out: {first} (")


def test_pictures_come_from_mlflow_as_from_the_folder(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 16})
    fabricate_pictures(folder)
    uri = new_database(tmp_path)
    assert mirror(RunFolder(folder), uri, "megdet")
    for source in (str(folder.parent), uri):
        ours, theirs = detections.draw(group_of(source)), proposals.draw(group_of(source))
        assert ours is not None and theirs is not None and (images_in(ours), images_in(theirs)) == (3, 6)


def test_the_files_have_the_pictures_in_them(tmp_path: Path) -> None:
    fabricate_pictures(fabricate_run(tmp_path / "runs", {"batch": 16}))
    figures = ["--figure", "proposals", "--figure", "detections"]
    assert make_figures.main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path), *figures]) == 0
    for name, number in (("proposals", 6), ("detections", 3)):
        assert (tmp_path / f"{name}.svg").read_text().count("data:image/png;base64") == number
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 500


def test_opaque_pictures_of_a_vector_file_become_smaller_and_transparent_ones_stay() -> None:
    def embedded(mode: str) -> str:
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, len(mode)), dtype=np.uint8)
        if mode == "RGBA":
            noise[..., 3] = np.where(noise[..., 0] > 128, 255, 0)
        content = io.BytesIO()
        Image.fromarray(noise, mode).save(content, format="PNG")
        return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

    opaque, transparent = embedded("RGB"), embedded("RGBA")
    svg = f'<svg><image href="{opaque}"/><image href="{transparent}"/></svg>'
    found = with_jpegs(svg)
    assert transparent in found and "data:image/jpeg;base64," in found and len(found) < len(svg) - len(opaque) // 3
