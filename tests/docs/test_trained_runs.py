"""The commands of docs/trained-runs.md, one after the other, and its program: they end with a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.pages import COMMANDS, ROOT, blocks
from tests.docs.reader import settle, type_in

PAGE = ROOT / "docs" / "trained-runs.md"


@pytest.mark.slow
def test_the_page_ends_with_a_picture(tmp_path: Path) -> None:
    folder = settle(tmp_path)
    outputs = [type_in(folder, block.text) for block in blocks(PAGE) if block.language in COMMANDS]
    trained, predicted, scored, looked, _ = outputs
    assert "finished" in trained
    [out] = (folder / "predictions").iterdir()
    found, listed = (json.loads((out / name).read_text()) for name in ("detections.json", "images.json"))
    assert len(listed["images"]) == 200 and len(found) >= 301 and f"{len(found)} boxes" in predicted
    assert len(list((out / "pictures").rglob("*.png"))) == 4
    assert "mmAP" in scored and "cup" in scored and "pen" in scored
    assert "mmAP" in looked and "AP_small" in looked
    for name in ("best.png", "run.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    began = [json.loads(path.read_text()) for path in folder.glob("runs/b8-bn8-normal-lr0.1x*/plan.json")]
    assert [plan["config"]["model"]["init_sha256"] is not None for plan in began] == [True]
