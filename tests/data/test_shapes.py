from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import decode, frPyObjects
from scipy.ndimage import binary_erosion

from megdet.data import generated
from megdet.data import shapes as module
from megdet.data.files import DataFiles, coco_files
from megdet.data.generated import generate
from megdet.data.images import load_image
from megdet.errors import UserError

# pycocotools' own mask decoder, under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SMALL = {"train_images": 3, "val_images": 2, "image_size": 64, "seed": 1}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_generated_set_is_valid_for_pycocotools(shapes: DataFiles) -> None:
    assert not shapes.missing()
    all_images = set()
    for folder, path, count in (
        (shapes.train_images, shapes.train_annotations, 80),
        (shapes.val_images, shapes.val_annotations, 21),
    ):
        coco = COCO(str(path))
        assert len(coco.imgs) == count == len(list(folder.glob("*.jpg")))
        assert len(coco.anns) == len(coco.dataset["annotations"])  # ids are unique
        assert coco.getCatIds() == [1, 2, 3, 5, 8, 13]
        assert {a["category_id"] for a in coco.anns.values()} == set(coco.getCatIds())
        assert min(coco.anns) > 0  # pycocotools takes 0 for "not matched"
        assert not all_images & set(coco.imgs)
        all_images |= set(coco.imgs)
        for image in coco.imgs.values():
            assert (folder / image["file_name"]).is_file()


def test_areas_and_boxes_are_those_of_the_masks(shapes: DataFiles) -> None:
    coco = COCO(str(shapes.train_annotations))
    for annotation in coco.anns.values():
        rows, columns = np.nonzero(coco.annToMask(annotation))
        left, top = columns.min(), rows.min()
        assert annotation["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert annotation["area"] == len(rows)


def test_masks_lie_on_their_objects_in_every_kind_of_file(shapes: DataFiles) -> None:
    """An object is nearly one colour inside, so a mask that were shifted, turned or mirrored would show."""
    coco = COCO(str(shapes.train_annotations))
    spreads = []
    for image in coco.imgs.values():
        pixels = load_image(shapes.train_images / image["file_name"], (image["height"], image["width"]))
        for annotation in coco.imgToAnns[image["id"]]:
            inside = binary_erosion(coco.annToMask(annotation), iterations=2)
            if not annotation["iscrowd"] and inside.sum() > 20:
                spreads.append(pixels.numpy()[:, inside].std(axis=1).max())
    assert len(spreads) > 150
    assert max(spreads) < 16


def test_set_has_what_makes_coco_hard(shapes: DataFiles) -> None:
    coco = COCO(str(shapes.train_annotations))
    objects = [a for a in coco.anns.values() if not a["iscrowd"]]
    sizes = Counter(int(a["area"] >= 32**2) + int(a["area"] >= 96**2) for a in objects)
    assert sizes[0] > 30 and sizes[1] > 50 and sizes[2] > 3, sizes
    crowds = [a for a in coco.anns.values() if a["iscrowd"]]
    assert crowds
    assert all(a["area"] < 0.8 * a["bbox"][2] * a["bbox"][3] for a in crowds)  # many pieces with gaps
    assert any(not coco.getAnnIds(imgIds=[image_id]) for image_id in coco.imgs)
    shapes_seen = {np.sign(i["width"] - i["height"]) for i in coco.imgs.values()}
    assert {-1, 1} <= shapes_seen
    assert {min(i["width"], i["height"]) for i in coco.imgs.values()} == {128}
    assert max(max(i["width"], i["height"]) for i in coco.imgs.values()) <= 192
    kinds: Counter[str | int] = Counter()
    for path in shapes.train_images.iterdir():
        with Image.open(path) as picture:
            kinds[picture.mode] += 1
            kinds[picture.getexif().get(0x0112, 1)] += 1
    assert kinds["L"] == 2 and kinds["CMYK"] == 2 and kinds["RGB"] == 76
    assert kinds[3] == kinds[6] == kinds[8] == 2


def test_later_objects_hide_parts_of_earlier_ones_but_never_most(shapes: DataFiles) -> None:
    """Seen on circles, whose whole area follows from the longer side of their box."""
    coco = COCO(str(shapes.train_annotations))
    masks = {image_id: [coco.annToMask(a) for a in coco.imgToAnns[image_id]] for image_id in coco.imgs}
    assert all(np.sum(of_image, axis=0).max() == 1 for of_image in masks.values() if of_image)  # visible parts only
    circles = [a for a in coco.anns.values() if a["category_id"] == 1 and not a["iscrowd"]]
    shares = [a["area"] / (math.pi / 4 * max(a["bbox"][2:]) ** 2) for a in circles]
    assert min(shares) < 0.9  # something is hidden
    assert min(shares) > 0.25  # of what is annotated at least 30 % is seen (boxes are those of the visible part)


def test_colour_does_not_tell_the_class(shapes: DataFiles) -> None:
    coco = COCO(str(shapes.train_annotations))
    colours, classes = [], []
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        pixels = load_image(shapes.train_images / image["file_name"], (image["height"], image["width"]))
        colours.append(pixels.numpy()[:, coco.annToMask(annotation) > 0].mean(axis=1))
        classes.append(annotation["category_id"])
    distances = np.linalg.norm(np.array(colours)[:, None] - np.array(colours)[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    found = np.array(classes)[distances.argmin(axis=1)] == np.array(classes)
    assert found.mean() < 0.3  # six classes: chance is 0.17


@pytest.mark.parametrize("first", [0, 1])
def test_run_lengths_are_pycocotools(first: int) -> None:
    """Also where the first pixel belongs to the mask."""
    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    mask[0, 0] = first
    region = {"size": [7, 5], "counts": generated._run_lengths(mask)}
    assert np.array_equal(decode(frPyObjects(region, 7, 5)), mask)


@pytest.mark.parametrize("shape", module._SHAPES, ids=lambda shape: shape.name)
def test_a_shape_has_the_area_that_it_states_and_lies_in_the_unit_disc(shape: module._Shape) -> None:
    y, x = (np.mgrid[:1200, :1200] + 0.5) / 500 - 1.2
    inside = shape.inside(x, y)
    assert inside.sum() / 500**2 == pytest.approx(shape.unit_area, rel=4e-3)
    assert np.hypot(x, y)[inside].max() == pytest.approx(1.0, abs=0.01)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 2}), ("d", {"train_images": 4})):
        generate("shapes", tmp_path / name, **(SMALL | changes))
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    first = "train2017/000000000001.jpg"
    assert files_of(tmp_path / "a")[first] != files_of(tmp_path / "c")[first]
    assert files_of(tmp_path / "a")[first] == files_of(tmp_path / "d")[first]  # more images keep the others


def test_a_set_that_is_there_is_left_alone_and_another_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "below" / "shapes"
    generate("shapes", root, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    generate("shapes", root, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    with pytest.raises(UserError, match=r"data\.root=.*train_images=3 \(asked: 5\).*remove"):
        generate("shapes", root, **(SMALL | {"train_images": 5}))
    assert [p.name for p in root.parent.iterdir()] == ["shapes"]
    assert capsys.readouterr().err == ""  # the bar is for terminals


def test_a_terminal_gets_a_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    generate("shapes", tmp_path / "shapes", **SMALL)
    assert capsys.readouterr().err.endswith(f"[{'#' * 30}] 5/5\n")


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file" / "below" / "set", Path("/proc/megdet/set")):
        with pytest.raises(UserError, match=rf"data\.root={root}: shapes cannot be written there \(.*choose another"):
            generate("shapes", root, **SMALL)


def test_a_folder_with_other_things_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"data\.root=.* is in use"):
        generate("shapes", tmp_path, **SMALL)
    assert files_of(tmp_path) == {"thesis.txt": b"precious"}


def test_an_interrupted_generation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(content: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", interrupt)
        with pytest.raises(KeyboardInterrupt):
            generate("shapes", tmp_path / "shapes", **SMALL)
    assert list(tmp_path.iterdir()) == []
    generate("shapes", tmp_path / "shapes", **SMALL)
    assert not coco_files(tmp_path / "shapes").missing()
