"""Both splits of a data set together: what they say, and what does not fit."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdet.data.data_set import read_data
from megdet.data.settings import SplitSettings
from megdet.errors import UserError
from tests.data.annotation_oracle import meaning_of
from tests.data.mutations import mutated
from tests.data.own_set import Content, write_own_set


def rewrite(path: Path, change: Callable[[Content], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_counts_classes_and_names_come_from_the_files(tmp_path: Path) -> None:
    facts = read_data(write_own_set(tmp_path)).facts
    assert (facts.train_images, facts.val_images, facts.num_classes) == (8, 4, 2)
    assert facts.class_names == ("pen", "cup") and facts.repairs == ()


def test_the_fingerprint_is_the_sha256_of_what_the_files_mean(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    digest = hashlib.sha256(b"megdet data 1")

    def add(content: bytes) -> None:
        digest.update(struct.pack("<q", len(content)) + content)

    for name, folder in (("learn", "pictures"), ("check", "elsewhere")):
        content = json.loads((tmp_path / "labels" / f"{name}.json").read_text())
        images, annotations = content["images"], content["annotations"]
        names = [image["file_name"] for image in images]
        ids = [image["id"] for image in images]
        add(json.dumps([names, ["pen", "cup"]]).encode())
        add(b"".join(struct.pack("<q", image_id) for image_id in ids))
        add(b"".join(struct.pack("<qq", image["height"], image["width"]) for image in images))
        add(struct.pack("<qq", 2, 7))
        add(b"".join(struct.pack("<q", ids.index(a["image_id"])) for a in annotations))
        add(b"".join(struct.pack("<q", [2, 7].index(a["category_id"]) + 1) for a in annotations))
        add(b"".join(struct.pack("<4d", *a["bbox"]) for a in annotations))
        add(b"".join(struct.pack("<d", a["area"]) for a in annotations))
        add(bytes(a["iscrowd"] for a in annotations))
        add(b"".join(struct.pack("<q", (tmp_path / folder / name).stat().st_size) for name in names))
    assert read_data(data).facts.fingerprint == digest.hexdigest()[:12]


def test_what_means_the_same_has_the_same_fingerprint(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    before = read_data(data).facts.fingerprint

    def other_words(content: Content) -> None:
        content["info"] = {"year": 1999}
        for number, entry in enumerate(content["annotations"]):
            entry["segmentation"], entry["id"] = [[1, 2, 3]], 1000 - number
            entry["bbox"] = [float(side) for side in entry["bbox"]]
        content["categories"].reverse()

    rewrite(tmp_path / "labels" / "learn.json", other_words)
    (tmp_path / "labels" / "learn.json").rename(tmp_path / "renamed.json")
    (tmp_path / "pictures" / "not_annotated.png").write_bytes(b"1")
    moved = replace(data, train=SplitSettings("renamed.json", "pictures"), workers=3)
    assert read_data(moved).facts.fingerprint == before


def set_at(content: Content, path: tuple[Any, ...], value: Any) -> None:
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("annotations", 1, "bbox", 0), 3), (("annotations", 1, "area"), 3), (("annotations", 1, "iscrowd"), 1),
        (("annotations", 1, "category_id"), 2), (("annotations", 1, "image_id"), 3), (("images", 2, "id"), 99),
        (("images", 2, "width"), 81), (("images", 2, "file_name"), "a/03.png"),
    ],
)  # fmt: skip
def test_another_content_has_another_fingerprint(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    data = write_own_set(tmp_path)
    before = read_data(data).facts.fingerprint
    (tmp_path / "pictures" / "a" / "03.png").write_bytes((tmp_path / "pictures" / "a" / "3.png").read_bytes())
    rewrite(tmp_path / "labels" / "learn.json", lambda content: set_at(content, path, value))
    assert read_data(data).facts.fingerprint != before


def test_an_image_of_another_size_in_bytes_or_order_has_another_fingerprint(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    before = read_data(data).facts.fingerprint
    image = tmp_path / "pictures" / "a" / "3.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert read_data(data).facts.fingerprint != before
    image.write_bytes(image.read_bytes()[:-1])
    assert read_data(data).facts.fingerprint == before
    rewrite(tmp_path / "labels" / "learn.json", lambda content: content["images"].reverse())
    assert read_data(data).facts.fingerprint != before, "the order decides which images make a batch"


def test_one_file_is_split_by_the_names_of_its_images(tmp_path: Path) -> None:
    data = replace(write_own_set(tmp_path, train=60), val=SplitSettings(), val_fraction=0.25)
    found = read_data(data)
    train, val = set(found.train.file_names), set(found.val.file_names)
    assert train | val == {f"a/{number}.png" for number in range(1, 61)} and not train & val
    by_others = {name for name in train | val if int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) < 2**46}
    assert val == by_others and 5 < len(val) < 25
    rewrite(tmp_path / "labels" / "learn.json", lambda content: content["images"].reverse())
    assert set(read_data(data).val.file_names) == val, "the file's order moves no image"
    rewrite(tmp_path / "labels" / "learn.json", lambda content: content["images"].pop(0))  # 60.png, without objects
    assert set(read_data(data).val.file_names) - val == set(), "nor do other images"
    assert val <= set(read_data(replace(data, val_fraction=0.5)).val.file_names)
    assert found.facts.train_images + found.facts.val_images == 60
    for split in (found.train, found.val):
        for index, name in enumerate(split.file_names):
            assert len(split.boxes(index)) == int(name[2:-4]) % 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda train, val: val["categories"].append({"id": 9, "name": "hat"}),
            "there is no category 9; 0 more differ",
        ),
        (lambda train, val: set_at(val, ("categories", 0, "name"), "mug"), 'category 7 is "mug", and in'),
        (
            lambda train, val: (
                [set_at(c, ("id",), 9 - c["id"]) for c in val["categories"]]
                + [set_at(a, ("category_id",), 9 - a["category_id"]) for a in val["annotations"]]
            ),
            'category 2 is "cup", and in',
        ),
        (
            lambda train, val: train["annotations"].clear(),
            "learn.json has no annotations: training needs objects; give data.train.",
        ),
        (
            lambda train, val: val["annotations"].clear(),
            "check.json has no annotations: validation needs objects; give data.val.",
        ),
        (
            lambda train, val: [set_at(a, ("iscrowd",), 1) for a in train["annotations"]],
            "learn.json has only crowd regions: training needs objects",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    data = write_own_set(tmp_path, change=change)
    with pytest.raises(UserError) as error:
        read_data(data)
    assert said in str(error.value)


def test_a_validation_file_without_some_categories_gets_those_of_training(tmp_path: Path) -> None:
    def fewer(train: Content, val: Content) -> None:
        val["categories"] = [c for c in val["categories"] if c["id"] == 7]
        val["annotations"] = [a for a in val["annotations"] if a["category_id"] == 7]

    found = read_data(write_own_set(tmp_path, change=fewer))
    assert found.val.category_ids == [2, 7]
    assert {int(label) for index in range(4) for label in found.val.labels(index)} == {2}
    assert found.facts.repairs == ("check.json: categories of learn.json that are not listed: 1 (first: pen)",)


def test_images_without_files_are_counted_and_refused_beyond_max_bad_images(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    (tmp_path / "pictures" / "a" / "2.png").unlink()
    (tmp_path / "elsewhere" / "101.png").unlink()
    (tmp_path / "elsewhere" / "101.png").mkdir()
    first, second = read_data(replace(data, max_bad_images=2)).facts.repairs
    assert "images without a file in " in first and ": 1 of 8 (first: a/2.png, id 2)" in first
    assert ": 1 of 4 (first: 101.png, id 101)" in second
    with pytest.raises(
        UserError, match=r"a/2\.png.*101\.png.*in all, and data\.max_bad_images=1: set the image folder"
    ):
        read_data(replace(data, max_bad_images=1))


def test_images_in_both_splits_are_said(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    both = read_data(replace(data, val=data.train)).facts
    assert both.repairs == ("images that are in both training and validation: 8 (first: a/1.png)",)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"train_images": 9}, r"data\.train_images=9, but .*learn\.json has 8 images.*Set data\.train_images=8"),
        ({"val_images": 9}, r"data\.val_images=9, but .*check\.json has 4 images"),
        ({"num_classes": 80}, r"Set data\.num_classes=2, or null, which asks the file"),
        (
            {"fingerprint": "0" * 12},
            r"data\.fingerprint=000000000000, but the content of .* is [0-9a-f]{12}: not the data",
        ),
    ],
)
def test_what_the_config_says_otherwise_is_refused_with_the_right_value(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    data = write_own_set(tmp_path)
    good = {"train_images": 8, "val_images": 4, "num_classes": 2, "fingerprint": read_data(data).facts.fingerprint}
    assert read_data(replace(data, **good)).facts.num_classes == 2
    with pytest.raises(UserError, match=said):
        read_data(replace(data, **asked))


def test_missing_files_are_named(tmp_path: Path) -> None:
    data = write_own_set(tmp_path)
    (tmp_path / "labels" / "check.json").unlink()
    with pytest.raises(UserError, match=r"labels/check\.json is not there"):
        read_data(data)


def test_of_150_mutated_sets_each_is_read_as_meant_or_refused_in_one_message(tmp_path: Path) -> None:
    data = replace(write_own_set(tmp_path, train=20), max_bad_images=20)
    original = json.loads((tmp_path / "labels" / "learn.json").read_text())
    outcomes: Counter[str] = Counter()
    for seed in range(150):
        _, raw = mutated(seed, original)
        (tmp_path / "labels" / "learn.json").write_bytes(raw)
        try:
            facts = read_data(data).facts
        except UserError as error:
            assert "\n" not in str(error), seed
            outcomes["refused"] += 1
        else:
            meaning = meaning_of(raw)
            counts = (len(meaning.images), len(meaning.categories))
            assert (facts.train_images, facts.num_classes) == counts, seed
            outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 20, outcomes
