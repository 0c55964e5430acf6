from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from megdet.data.files import DataFiles, check_files, coco_files
from megdet.errors import UserError


def test_a_complete_set_passes(shapes: DataFiles) -> None:
    check_files(shapes)


def test_what_is_missing_is_named_with_the_setting_and_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").mkdir()  # a folder is no annotation file
    with pytest.raises(UserError) as error:
        check_files(coco_files(tmp_path))
    text = str(error.value)
    assert str(tmp_path / "train2017") in text
    assert "instances_train2017.json" in text
    assert "instances_val2017.json" in text
    assert str(tmp_path / "val2017") + "," not in text
    for way_out in (f"data.root={tmp_path}", "https://cocodataset.org/#download", "data=shapes"):
        assert way_out in text


def test_finding_and_generating_data_load_no_torch() -> None:
    code = "import megdet.data.files, megdet.data.shapes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
