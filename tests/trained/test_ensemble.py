"""Several views of an image, and several runs, as one detector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import megdet
from megdet import cli
from megdet.errors import UserError
from megdet.trained.ensemble import score_ensemble
from megdet.trained.fusion import fuse
from megdet.trained.images import images_at
from megdet.trained.views import View, detections_in, mirrored, views_of
from megdet.training.checkpoint import Checkpoint
from tests.model.detectors import random_batch
from tests.trained.conftest import Trained
from tests.trained.test_trained_run import stats_of

LABELS = list(range(1, 7))


def other_run(trained: Trained, folder: Path) -> Path:
    """The same run with weights a little off."""
    shutil.copytree(trained.folder, folder)
    checkpoint = Checkpoint.read(folder / "checkpoint.pt", torch.device("cpu"))
    assert checkpoint is not None
    weight = checkpoint.model["roi_heads.box_predictor.cls_score.weight"]
    weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    checkpoint.write(folder / "checkpoint.pt")
    return folder


def test_views_are_every_size_and_with_flip_each_mirrored_too() -> None:
    assert views_of() == (View(),) and views_of(flip=True) == (View(), View(None, True))
    assert views_of([64, 96], flip=True) == (View(64), View(64, True), View(96), View(96, True))
    for sizes, words in (([0], "size 0"), ([64, 64], "name each once")):
        with pytest.raises(UserError, match=words):
            views_of(sizes)


def test_images_are_mirrored_within_their_own_area() -> None:
    batch = random_batch([(64, 96), (50, 80)])
    once = mirrored(batch)
    assert torch.equal(mirrored(once).images, batch.images)
    assert torch.equal(once.images[1, :, :50, :80], batch.images[1, :, :50, :80].flip(2))
    assert not once.images[1, :, :, 80:].any() and not once.images[1, :, 50:].any()


def test_boxes_of_a_mirrored_view_are_those_of_the_mirrored_files(trained: Trained, tmp_path: Path) -> None:
    run = megdet.load(trained.folder)
    for file in trained.images.iterdir():
        with Image.open(file) as picture:
            picture.save(tmp_path / f"{file.stem}.png")
    (tmp_path / "mirrored").mkdir()
    for file in tmp_path.glob("*.png"):
        with Image.open(file) as picture:
            ImageOps.mirror(picture).save(tmp_path / "mirrored" / file.name)
    files = sorted(tmp_path.glob("*.png"))
    asked = images_at(files)
    found, _ = detections_in(run, asked.folder, asked.listed, category_ids=LABELS, views=(View(None, True),))
    rows = found.rows
    compared = 0
    for image, theirs in zip(
        asked.listed.image_ids, run.predict(sorted((tmp_path / "mirrored").iterdir())), strict=True
    ):
        own = rows[rows[:, 0] == image]
        width = theirs.size[1]
        x1, x2 = width - own[:, 1] - own[:, 3], width - own[:, 1]
        boxes = np.column_stack((x1, own[:, 2], x2, own[:, 2] + own[:, 4]))
        np.testing.assert_allclose(boxes, theirs.boxes, atol=0.75, rtol=0)  # resized pixels are not quite symmetric
        compared += len(own)
    assert compared > 20


def test_several_views_are_fused(trained: Trained) -> None:
    run, asked = megdet.load(trained.folder), images_at(trained.images)
    views = views_of([64, 80], flip=True)
    told: list[tuple[int, int]] = []
    found, bad = detections_in(
        run, asked.folder, asked.listed, category_ids=LABELS, views=views, advance=lambda *done: told.append(done)
    )
    each = [
        detections_in(run, asked.folder, asked.listed, category_ids=LABELS, views=(view,))[0].rows for view in views
    ]
    np.testing.assert_allclose(found.rows, fuse(each, most=100), atol=1e-6)
    assert bad == {} and told[-1] == (32, 32)
    scores = run.evaluate(trained.annotations, trained.images, sizes=[64, 80], flip=True)
    assert scores.metrics != run.evaluate(trained.annotations, trained.images).metrics


def test_an_ensemble_is_scored_beside_its_members_and_leaves_cocos_results(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_run(trained, tmp_path / "other")
    where = ["--annotations", str(trained.annotations), "--images", str(trained.images)]
    out = tmp_path / "out"
    words = ["ensemble", str(trained.folder), str(other), *where, "--out", str(out)]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [member["run"] for member in found["members"]] == [trained.folder.name, "other"]
    assert found["members"][0]["metrics"] != found["members"][1]["metrics"]
    together = list(found["together"]["metrics"].values())
    expected = [-1 if value is None else value / 100 for value in together]
    assert stats_of(trained.annotations, out / "detections.json") == pytest.approx(expected, abs=5e-3)
    capsys.readouterr()
    assert cli.main([*words, "--method", "nms", "--sizes", "64,72", "--flip"]) == 0
    said = capsys.readouterr().out
    assert "other" in said and "ensemble" in said and "Together they are" in said


def test_a_run_twice_is_no_better_and_no_worse_than_alone(trained: Trained, tmp_path: Path) -> None:
    found = score_ensemble(
        [trained.folder, trained.folder], trained.annotations, trained.images, method="nms", iou=0.99
    )
    assert found.together.metrics == found.members[0].metrics and not found.beats_its_members


def test_what_makes_no_ensemble_is_one_message(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--annotations", str(trained.annotations), "--images", str(trained.images)]
    assert cli.main(["ensemble", str(trained.folder), *where]) == 2
    assert "at least two runs" in capsys.readouterr().err
    for changes, words in (({"method": "mean"}, "use one of wbf, nms"), ({"iou": 1.5}, "between 0 and 1")):
        with pytest.raises(UserError, match=words):
            score_ensemble([trained.folder] * 2, trained.annotations, trained.images, **changes)
