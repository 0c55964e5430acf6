from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.data.files import DataFiles, check_files, files_of
from megdet.data.settings import DataSettings, SplitSettings
from megdet.errors import UserError


def own(root: Path, **changes: object) -> DataSettings:
    return replace(DataSettings(name="custom", root=str(root)), **changes)  # type: ignore[arg-type]


def test_a_complete_set_passes(shapes: DataFiles) -> None:
    assert check_files(DataSettings(root=str(shapes.train_images.parent))) == shapes
    assert not shapes.missing()


def test_what_is_missing_is_named_with_the_setting_and_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").mkdir()  # a folder is no annotation file
    with pytest.raises(UserError) as error:
        check_files(DataSettings(root=str(tmp_path)))
    text = str(error.value)
    assert str(tmp_path / "train2017") in text
    assert "instances_train2017.json" in text
    assert "instances_val2017.json" in text
    assert str(tmp_path / "val2017") + "," not in text
    for way_out in (f"data.root={tmp_path}", "https://cocodataset.org/#download", "data=custom", "data=shapes"):
        assert way_out in text


def test_own_files_lie_anywhere_and_images_by_default_beside_their_annotations(tmp_path: Path) -> None:
    data = own(
        tmp_path, train=SplitSettings("a/labels.json", "/pictures"), val=SplitSettings(str(tmp_path / "b" / "v.json"))
    )
    files = files_of(data)
    assert (files.train_annotations, files.train_images) == (tmp_path / "a" / "labels.json", Path("/pictures"))
    assert (files.val_annotations, files.val_images) == (tmp_path / "b" / "v.json", tmp_path / "b")
    with pytest.raises(UserError, match=r"data=custom: /pictures.* is not there; give data\.train\.annotations"):
        check_files(data)


def test_one_file_can_be_both(tmp_path: Path) -> None:
    files = files_of(own(tmp_path, train=SplitSettings("all.json"), val_fraction=0.25))
    assert files == DataFiles(tmp_path, tmp_path / "all.json", tmp_path, tmp_path / "all.json", 0.25)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": SplitSettings("a.json")}, r"data\.val\.annotations is not given.*data\.val_fraction=0\.1"),
        ({"val": SplitSettings("a.json")}, r"data\.train\.annotations is not given"),
        ({"val_fraction": 0.1}, r"data\.train\.annotations is not given"),
        (
            {"train": SplitSettings("a.json"), "val": SplitSettings("b.json"), "val_fraction": 0.1},
            r"data\.val_fraction=0\.1 takes the validation images from data\.train\.annotations.*one of the two",
        ),
    ],
)
def test_settings_that_make_no_two_splits_are_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        files_of(own(tmp_path, **changes))


def test_finding_reading_and_generating_data_load_no_torch() -> None:
    code = "import megdet.data.data_set, megdet.data.shapes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import megdet.data.resolve, sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
