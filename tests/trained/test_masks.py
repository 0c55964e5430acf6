"""A run that finds masks, from training to the server's file, held to pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import megdet
from megdet import cli
from megdet.data.files import coco_files
from megdet.model.settings import MaskSettings
from megdet.planning.plan import make_plan
from megdet.runs.classes import Classes
from megdet.runs.folder import RunFolder
from megdet.runs.journal import COCO_METRICS, MASK_METRICS, read_journal
from megdet.training.starting_point import PREDICTOR
from tests.trained.conftest import Trained
from tests.trained.test_init_from import config_from, started
from tests.training.test_run import config_of, folder_of, start

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Trained:
    place = tmp_path_factory.mktemp("masked")
    files = coco_files(shutil.copytree(shapes_root, place / "data"))
    config = config_of(place, place / "data")
    config.model.mask = MaskSettings(name="generator", layers=1, resolution=7)
    plan = make_plan(config)
    process = start(plan)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return Trained(folder_of(plan), files.val_images, files.val_annotations)


def asked(masked: Trained) -> list[str]:
    return ["--annotations", str(masked.annotations)]


def test_the_servers_file_scores_as_the_last_evaluation_of_training(
    masked: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_, last = read_journal(RunFolder(masked.folder), kinds=("step", "epoch"))
    assert first["mask"] > 0 and {*COCO_METRICS, *MASK_METRICS} <= last.keys()
    out = ["--out", str(tmp_path), "--pictures", "1"]
    assert cli.main(["predict", str(masked.folder), str(masked.images), *asked(masked), *out]) == 0
    assert str(tmp_path / "masks.json") in capsys.readouterr().out
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(masked.annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "masks.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = [-1 if last[name] is None else last[name] / 100 for name in MASK_METRICS]
    assert list(evaluation.stats) == pytest.approx(expected, abs=5e-3), "but for scores that are rounded"
    entry = json.loads((tmp_path / "masks.json").read_text())[0]
    assert entry.keys() == {"image_id", "category_id", "segmentation", "score"}
    boxes = json.loads((tmp_path / "detections.json").read_text())
    assert len(boxes) == len(json.loads((tmp_path / "masks.json").read_text()))


def test_eval_scores_masks_where_the_file_has_them_and_boxes_alone_elsewhere(
    masked: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(masked.folder), "--images", str(masked.images)]
    assert cli.main([*words, *asked(masked), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = read_journal(RunFolder(masked.folder), kinds=("epoch",))[-1]
    assert found["metrics"] == {name: last[name] for name in (*COCO_METRICS, *MASK_METRICS)}
    own = [one["mask_mmAP"] for one in found["by_class"].values() if one["mask_mmAP"] is not None]
    assert found["metrics"]["mask_mmAP"] == pytest.approx(np.mean(own))
    assert cli.main([*words, *asked(masked)]) == 0
    assert capsys.readouterr().out.count("mask_mmAP") == 2, "of all, and by class"
    content = json.loads(masked.annotations.read_text())
    for entry in content["annotations"]:
        del entry["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    assert cli.main([*words, "--annotations", str(tmp_path / "boxes.json"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {name: last[name] for name in COCO_METRICS}


def test_predictions_have_masks_and_pictures_show_them(masked: Trained) -> None:
    run = megdet.load(masked.folder)
    found = max(run.predict(masked.images), key=len)
    assert found.masks is not None and len(found.masks) == len(found) > 0
    assert found.masks.pixels(found.size).shape == (len(found), *found.size)
    least = float(found.scores.min())
    drawn = np.asarray(found.picture(min_score=least), dtype=float)
    without = np.asarray(type(found)(**{**vars(found), "masks": None}).picture(min_score=least), dtype=float)
    assert (drawn != without).any(-1).sum() > 100
    assert list((masked.folder / "pictures").glob("detections-*.png"))


def test_the_part_of_a_mask_branch_that_tells_classes_apart_starts_anew_with_other_classes(
    masked: Trained, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_from(masked, tmp_path, shapes_root)
    config.model.mask = MaskSettings(name="generator", layers=1, resolution=7)
    same = RunFolder(masked.folder).classes()
    assert same is not None and started(config, same)[1] == []
    renamed = Classes(same.ids, ("zebra", *same.names[1:]))
    assert started(config, renamed)[1] == [PREDICTOR, "mask.classify"]


def test_several_views_have_boxes_alone_and_say_so(
    masked: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(masked.folder), str(masked.images), "--flip", "--out", str(tmp_path), "--pictures", "0"]
    assert cli.main(words) == 0
    assert "no masks: boxes of several views are fused" in capsys.readouterr().out
    assert not (tmp_path / "masks.json").exists()
    scores = megdet.load(masked.folder).evaluate(masked.annotations, masked.images, flip=True)
    assert "mask_mmAP" not in scores.metrics
