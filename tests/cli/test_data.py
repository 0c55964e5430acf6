"""`megdet data check`, as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from megdet import cli
from megdet.data.data_set import read_data
from tests.data.own_set import Content, write_own_set

OWN = [
    "data=custom", "data.train.annotations=labels/learn.json", "data.train.images=pictures",
    "data.val.annotations=labels/check.json", "data.val.images=elsewhere",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_good_set_is_reported_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def with_a_crowd(train: Content, val: Content) -> None:
        train["annotations"][0]["iscrowd"] = 1
        train["annotations"][1].update(bbox=[1, 1, 60, 60], area=3600)

    data = write_own_set(tmp_path, change=with_a_crowd)
    assert cli.main(["data", "check", *OWN]) == 0
    said = capsys.readouterr().out
    assert f"2 classes, fingerprint {read_data(data).facts.fingerprint}" in said
    content = json.loads((tmp_path / "labels" / "learn.json").read_text())
    cups = sum(a["category_id"] == 7 and not a["iscrowd"] for a in content["annotations"])
    for row in (r"images +8 +4", r"without a box +3 +1", r"boxes +8 +5", r"small .* 7 +5", r"medium +1 +0",
                r"crowd regions +1 +0", rf"cup +{cups} +3", r"pen +3 +2",
                 r"smallest image.* 80 x 64 +80 x 64"):  # fmt: skip
        assert re.search(row, said), row
    assert "all 12 images have their annotated size (headers read)" in said


def test_masks_are_checked_where_the_model_wants_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def masked(train: Content, val: Content) -> None:
        for entry in (*train["annotations"], *val["annotations"]):
            entry["segmentation"] = (
                [[5, 5, 20, 5, 20, 20, 5]] if entry is train["annotations"][2] else [[5, 5, 20, 5, 9, 9]]
            )

    write_own_set(tmp_path, change=masked)
    assert cli.main(["data", "check", *OWN]) == 0
    assert cli.main(["data", "check", *OWN, "model.mask.name=head"]) == 2
    assert "learn.json: annotations[2] (id 3) has segmentation [[5, 5" in capsys.readouterr().err


def test_repairs_are_listed_and_are_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_set(tmp_path, change=lambda train, val: train["annotations"][3].pop("area") and None)
    assert cli.main(["data", "check", *OWN]) == 0
    assert "learn.json: annotations without an area above 0, given that of their box: 1" in capsys.readouterr().out


def test_images_that_cannot_be_used_are_named_and_exit_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_own_set(tmp_path)
    Image.new("L", (33, 44)).save(tmp_path / "pictures" / "a" / "2.png")
    (tmp_path / "elsewhere" / "101.png").unlink()
    truncated = tmp_path / "elsewhere" / "102.png"
    truncated.write_bytes(truncated.read_bytes()[:-30])
    assert cli.main(["data", "check", *OWN, "data.max_bad_images=0"]) == 1
    said = capsys.readouterr().out
    assert "training images that cannot be used: 1\n  a/2.png: the file has 33x44 pixels, its" in said
    assert "validation images that cannot be used: 1\n  101.png: No such file" in said
    assert "a run would stop: data.max_bad_images=0" in said
    assert cli.main(["data", "check", "--pixels", *OWN]) == 1
    said = capsys.readouterr().out
    assert "validation images that cannot be used: 2\n" in said and "102.png: " in said and "a run would" not in said


def test_both_files_that_are_refused_say_why_and_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(train: Content, val: Content) -> None:
        train["annotations"][0]["bbox"] = [1, 2, -3, 4]
        val["images"][2]["width"] = "wide"

    write_own_set(tmp_path, change=spoil)
    assert cli.main(["data", "check", *OWN]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 2
    assert "learn.json: annotations[0] (id 1) has bbox" in captured.err
    assert 'check.json: images[2] (id 103) has width "wide"' in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data=costum"], "Did you mean custom?"),
        (["data.rot=x"], "Did you mean data.root "),
        (["data=custom"], "data.root="),
        (["data=shapes"], "data=shapes is drawn when a run first needs it"),
        (["data=custom", "data.train.annotations=none.json", "data.val_fraction=0.5"], "none.json is not there"),
        ([*OWN, "data.num_classes=80"], "Set data.num_classes=2"),
    ],
)
def test_a_mistake_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    write_own_set(tmp_path)
    assert cli.main(["data", "check", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and captured.err.count("\n") == 1


def test_classes_without_a_box_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def one_more(train: Content, val: Content) -> None:
        for content in (train, val):
            content["categories"].append({"id": 9, "name": "hat"})

    write_own_set(tmp_path, change=one_more)
    assert cli.main(["data", "check", *OWN]) == 0
    assert "classes without a box to learn from: hat" in capsys.readouterr().out


def test_it_loads_no_torch(tmp_path: Path) -> None:
    write_own_set(tmp_path)
    code = f"import sys; from megdet import cli; cli.main(['data', 'check', *{OWN}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
