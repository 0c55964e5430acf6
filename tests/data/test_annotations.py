"""What the one reader makes of annotation files: by hand what tests/data/test_mutations.py does by the thousand."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megdet.data.annotations import read_annotations
from megdet.errors import UserError

Write = Callable[..., Path]


def annotation(number: int, image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, "area": 20.5, **more
    }  # fmt: skip


CONTENT: dict[str, Any] = {
    "images": [
        {"id": 30, "file_name": "c.jpg", "height": 40, "width": 60},
        {"id": 10, "file_name": 'a "segmentation": [1] .jpg', "height": 50, "width": 50},
        {"id": 20, "file_name": "b.jpg", "height": 20, "width": 30},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        annotation(1, 10, 90, [5, 6, 10, 20], segmentation=[[5.0, 6.0, 15.0, 6.5, 1e-3, 26.0], [1, 2, 3, 4, 5, 6]]),
        annotation(2, 30, 1, [0, 10, 15, 30], segmentation={"counts": [3, 4], "size": [40, 60]}),
        annotation(3, 10, 18, [1, 1, 3.5, 4.25], segmentation={"counts": "]\\[PQ01", "size": [50, 50]}),
        annotation(4, 10, 1, [0, 0, 50, 50], iscrowd=1),
        annotation(9, 30, 18, [50.5, 10, 9.5, 10]),
    ],
}


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """CONTENT with the entry at `path` replaced, or removed where `value` is ..."""
    content = copy.deepcopy(CONTENT)
    inner: Any = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def test_a_file_is_read_in_its_own_order_with_the_categories_by_id(write_annotations: Write) -> None:
    found = read_annotations(write_annotations(CONTENT))
    assert found.image_ids.tolist() == [30, 10, 20]
    assert found.sizes.tolist() == [[40, 60], [50, 50], [20, 30]]
    assert found.file_names == ("c.jpg", 'a "segmentation": [1] .jpg', "b.jpg")
    assert (found.category_ids.tolist(), found.category_names) == ([1, 18, 90], ("person", "dog", "toothbrush"))
    assert found.owner.tolist() == [1, 0, 1, 1, 0] and found.labels.tolist() == [3, 1, 2, 1, 2]
    assert found.boxes.tolist() == [a["bbox"] for a in CONTENT["annotations"]]
    assert found.areas.tolist() == [20.5] * 5 and found.crowds.tolist() == [False, False, False, True, False]
    assert found.repairs == ()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("annotations", 1, "bbox"), [-5, 30, 20, 30], "boxes that reach beyond their images, cut: 1 (first: "),
        (("annotations", 1, "bbox"), [60, 10, 5, 5], "boxes that are empty or outside their images, left out: 1 ("),
        (("annotations", 1, "bbox"), [10, 39.995, 5, 5], "left out: 1 (first: annotations[1] (id 2): [10.0, 39.995"),
        (("annotations", 1, "bbox"), [10, 10, 0, 5], "left out: 1"),
        (("annotations", 1, "bbox"), ["0", "10", "15", "3e1"], "numbers written as text, read as numbers: 1"),
        (("annotations", 2, "id"), ..., "annotations without a whole number of their own as id, numbered anew: 1 ("),
        (("annotations", 2, "id"), 4, "(first: annotations[3] (id 4))"),
        (("annotations", 2, "id"), "three", "numbered anew"),
        (("annotations", 2, "id"), 2**60, "numbered anew"),
        (("annotations", 2, "id"), -3, "numbered anew"),
        (("annotations", 2, "image_id"), "10", 'read as such: 1 (first: annotations[2] (id 3): "10")'),
        (("annotations", 2, "category_id"), 18.0, "values of category_id not written as whole numbers"),
        (("annotations", 2, "iscrowd"), ..., "annotations without iscrowd, read as objects: 1"),
        (("annotations", 2, "iscrowd"), False, "values of iscrowd not written as 0 or 1, read as such: 1"),
        (("annotations", 2, "iscrowd"), "0", "values of iscrowd not written as 0 or 1, read as such: 1"),
        (("annotations", 2, "area"), ..., "annotations without an area above 0, given that of their box: 1"),
        (("annotations", 2, "area"), 0, "of their box: 1 (first: annotations[2] (id 3): 0)"),
        (("images", 1, "width"), "50", "values of width not written as whole numbers"),
        (("images", 1, "height"), 50.0, "values of height not written as whole numbers"),
        (("images", 0, "file_name"), "sub\\c.jpg", "file names with backslashes, read with slashes: 1"),
    ],
)  # fmt: skip
def test_what_has_one_meaning_is_repaired_counted_and_said(
    write_annotations: Write, path: tuple[str | int, ...], value: Any, said: str
) -> None:
    file = write_annotations(changed(path, value))
    [repair] = read_annotations(file).repairs
    assert repair.startswith(f"{file.name}: ") and said in repair


def test_a_box_cut_at_the_image_keeps_what_is_inside(write_annotations: Write) -> None:
    found = read_annotations(write_annotations(changed(("annotations", 1, "bbox"), [-5, 30, 20, 30])))
    assert found.boxes[1].tolist() == [0, 30, 15, 10]
    rounded = read_annotations(write_annotations(changed(("annotations", 1, "bbox"), [-0.5, 10, 20, 30.75])))
    assert rounded.boxes[1].tolist() == [-0.5, 10, 20, 30.75] and rounded.repairs == (), "rounding is left as it is"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("info",), {"year": ""}), (("info",), {"year": "2023"}), (("info",), None), (("licenses",), "none"),
        (("images", 0, "license"), {}), (("images", 0, "date_captured"), 0), (("annotations", 0, "keypoints"), ["x"]),
        (("annotations", 0, "segmentation"), None),
        (("annotations", 0, "segmentation"), {"counts": "}{][", "a": {"b": 1}}),
        (("annotations", 0, "segmentation"), [[[1, "two"], {}]]), (("annotations", 0, "attributes"), {"bbox": [1]}),
        (("categories", 0, "supercategory"), None), (("annotations", 0, "caption"), 'a "bbox": [1, 2]'),
    ],
)  # fmt: skip
def test_what_boxes_do_not_need_decides_nothing(
    write_annotations: Write, path: tuple[str | int, ...], value: Any
) -> None:
    found = read_annotations(write_annotations(changed(path, value)))
    assert found.boxes.tolist() == [a["bbox"] for a in CONTENT["annotations"]] and found.repairs == ()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("images",), [], "has no images"),
        (("categories",), [], "has no categories"),
        (("images", 1, "id"), ..., "images[1] has no id"),
        (("images", 1, "id"), None, "images[1] (id null) has id null: not a whole number"),
        (("images", 1, "id"), True, "images[1] (id true) has id true: not a whole number"),
        (("images", 1, "id"), "img_1", 'has id "img_1": not a whole number'),
        (("images", 1, "id"), "010", 'has id "010": not a whole number'),
        (("images", 1, "id"), -10, "has id -10: negative"),
        (("images", 1, "id"), 2**53 + 1, "has id 9007199254740993: above 2^53"),
        (("images", 1, "id"), 20, "images[2] (id 20) has the id 20 of images[1]"),
        (("images", 1, "width"), ..., "images[1] (id 10) has no width"),
        (("images", 1, "width"), 0, "has width 0: less than 1"),
        (("images", 1, "width"), "wide", 'has width "wide": not a whole number'),
        (("images", 1, "height"), 50.5, "has height 50.5: not a whole number"),
        (("images", 1, "file_name"), ..., "has no file_name"),
        (("images", 1, "file_name"), "", "not the name of a file"),
        (("images", 1, "file_name"), 7, "has file_name 7: not a text"),
        (("images", 1, "file_name"), "/etc/passwd", "not below the image folder"),
        (("images", 1, "file_name"), "a/../../b.jpg", "it would leave the image folder"),
        (("images", 1, "file_name"), "..\\b.jpg", "it would leave the image folder"),
        (("images", 1, "file_name"), "./c.jpg", 'images[1] (id 10) has the file_name "c.jpg" of images[0]'),
        (("categories", 1, "id"), 90, "categories[1] (id 90) has the id 90 of categories[0]"),
        (("categories", 1, "name"), "dog", 'categories[2] (id 18) has the name "dog" of categories[1]'),
        (("categories", 1, "name"), " ", "not a name"),
        (("annotations", 2, "bbox"), ..., "annotations[2] (id 3) has no bbox"),
        (("annotations", 2, "bbox"), [1, 2, 3], "has bbox [1, 2, 3]: 3 values instead of four"),
        (("annotations", 2, "bbox"), [1, 2, 3, "wide"], '"wide" is not a number'),
        (("annotations", 2, "bbox"), [1, 2, 3, True], "true is not a number"),
        (("annotations", 2, "bbox"), {"x": 1}, "not a list of four numbers"),
        (("annotations", 2, "bbox"), [10, 10, -5, 3], "has bbox [10.0, 10.0, -5.0, 3.0], of negative width or height"),
        (("annotations", 2, "bbox"), [1, 2, 3, 10**400], "has a number that is not finite"),
        (("annotations", 2, "image_id"), 77, "annotations[2] (id 3) has image_id 77, which is not in `images`"),
        (("annotations", 2, "category_id"), 2, "has category_id 2, which is not in `categories`"),
        (("annotations", 2, "iscrowd"), "no", 'has iscrowd "no": neither 0 nor 1'),
        (("annotations", 2, "iscrowd"), 2, "has iscrowd 2: neither 0 nor 1"),
    ],
)  # fmt: skip
def test_what_has_no_sure_meaning_is_refused_with_the_file_and_the_entry(
    write_annotations: Write, path: tuple[str | int, ...], value: Any, said: str
) -> None:
    file = write_annotations(changed(path, value))
    with pytest.raises(UserError) as error:
        read_annotations(file)
    assert str(error.value).startswith(str(file)) and said in str(error.value)


def test_a_message_counts_the_entries_like_the_one_it_shows(write_annotations: Write) -> None:
    content = copy.deepcopy(CONTENT)
    for entry in content["annotations"][1:]:
        entry["bbox"] = [9, 9, -5, -5]
    with pytest.raises(
        UserError, match=r"annotations\[1\] \(id 2\) has bbox .*; 3 more like it\. bbox is \[x, y, width"
    ):
        read_annotations(write_annotations(content))


@pytest.mark.parametrize("kind", ["corners", "outside", "fractions", "all empty"])
def test_boxes_that_cannot_belong_to_their_images_are_refused(write_annotations: Write, kind: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["annotations"] *= 8 if kind in ("corners", "outside") else 1
    content["annotations"] = [dict(entry) for entry in content["annotations"]]
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = {
            "corners": [x + 20, y + 20, x + 20 + w, y + 20 + h],
            "outside": [x + 500, y, w, h],
            "fractions": [x / 60, y / 60, w / 60, h / 60],
            "all empty": [x, y, 0, h],
        }[kind]
    hint = "fractions of the image" if kind == "fractions" else r"are some \[x1, y1, x2, y2\]"
    with pytest.raises(UserError, match=hint):
        read_annotations(write_annotations(content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ('{"images": [', "its end is missing"),
        ("[1, 2]", "this one has no object at the top"),
        ('{"images": [], "info": {}}', 'this one lacks categories, annotations and has "images", "info"'),
        ('{"images": [], "categories": "person", "annotations": []}', "at `$.categories`"),
        ('{"images": [3], "categories": [], "annotations": []}', "at `$.images[0]`"),
        ('{"images": [],\n "annotations": [{"bbox": [1, NaN, 2, 3]}]}', "has NaN or Infinity (line 2, near"),
        ('{"images": []}\n{"images": []}', "JSON lines perhaps"),
        ('{"images": [],\n\n "annotations": [{"bbox": [1, 2 3]}]}', "is not valid JSON (line 3, near"),
        ('{"images": [], "annotations": [], "categories": [], "annotations": []}',
        "`annotations` more than once"),
        ("\ufeff{}", "begins with a byte order mark"),
        ("PK\x03\x04", "is a zip archive; unpack it"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)  # fmt: skip
def test_what_is_no_annotation_file_is_one_message(write_annotations: Write, content: str, said: str) -> None:
    file = write_annotations(content)
    with pytest.raises(UserError) as error:
        read_annotations(file)
    assert str(error.value).startswith(str(file)) and said in str(error.value) and "\n" not in str(error.value)


def test_text_that_is_not_utf_8_is_one_message(tmp_path: Path) -> None:
    for raw in ('{"ä": 1}'.encode("latin-1"), '{"images": []}'.encode("utf-16")):
        (tmp_path / "a.json").write_bytes(raw)
        with pytest.raises(UserError, match=r"a\.json is (not UTF-8|UTF-16)"):
            read_annotations(tmp_path / "a.json")


def test_a_missing_file_a_folder_and_a_pipe_name_the_settings(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "instances.json", tmp_path, tmp_path / "pipe"):
        with pytest.raises(
            UserError, match=r"cannot read .*; check the path .*data\.root with data\.train\.annotations"
        ):
            read_annotations(path)


def test_part_of_the_images_keeps_its_own_boxes(write_annotations: Write) -> None:
    whole = read_annotations(write_annotations(CONTENT))
    part = whole.of_images(whole.image_ids != 30)
    assert part.image_ids.tolist() == [10, 20] and part.file_names == whole.file_names[1:]
    assert part.owner.tolist() == [0, 0, 0] and part.labels.tolist() == [3, 2, 1]
    assert part.boxes.tolist() == [CONTENT["annotations"][place]["bbox"] for place in (0, 2, 3)]
