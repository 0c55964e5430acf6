"""Runs scored on images of known and new material."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from megdet.data import digits
from megdet.data.files import coco_files
from megdet.data.generated import generate
from megdet.data.known import SEED
from megdet.errors import UserError
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import make_plan
from megdet.studies import digits_or_photographs
from megdet.studies.digits_or_photographs import SETS, make_set, trained_on_digits
from tests.trained.conftest import Trained
from tests.trained.conftest import trained as trained
from tests.training.test_run import config_of, folder_of


def test_each_set_has_the_photographs_and_the_digits_of_the_splits_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training's photographs dark and its digits nought, validation's bright and one; exposure and noise apart."""
    ink = np.pad(np.ones((1, 14, 6), dtype=np.float32), ((0, 0), (7, 7), (11, 11)))

    def photographs(training: bool) -> tuple[np.ndarray, ...]:
        return (np.full((200, 200, 3), 20 if training else 235, dtype=np.uint8),)

    monkeypatch.setattr(digits, "_photographs", photographs)
    monkeypatch.setattr(digits, "_digits", lambda training: (ink, np.array([0 if training else 1])))
    monkeypatch.setattr(digits, "_clutter", lambda _rng, _pixels: None)
    monkeypatch.setattr(digits, "_photographed", lambda _rng, pixels: pixels)
    for name, (dark, digit) in {
        "both known": (True, 0),
        "photographs known": (True, 1),
        "digits known": (False, 0),
        "both new": (False, 1),
    }.items():
        make_set(name, tmp_path, images=4, image_size=64)
        annotations = json.loads((tmp_path / f"{name}.json").read_text())["annotations"]
        assert {one["category_id"] for one in annotations} == {digit + 1}, name
        material = SETS[name]
        pixels = digits.paint_of(material, np.random.default_rng(0), 64).pixels
        assert np.median(pixels) == pytest.approx(20 if dark else 235, abs=1), name


def test_images_of_new_material_are_those_of_validation_and_the_others_no_image_of_training(tmp_path: Path) -> None:
    generate("digits", tmp_path / "set", train_images=6, val_images=4, image_size=64, seed=SEED)
    files = coco_files(tmp_path / "set")
    made = {}
    for name in SETS:
        make_set(name, tmp_path, images=4, image_size=64)
        made[name] = [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
    assert made["both new"] == [path.read_bytes() for path in sorted(files.val_images.iterdir())]
    content, validation = (json.loads(path.read_text()) for path in (tmp_path / "both new.json", files.val_annotations))
    assert content == {key: validation[key] for key in content}
    of_training = {path.read_bytes() for path in files.train_images.iterdir()}
    assert len(made) == 4 and all(of_training.isdisjoint(images) for images in made.values())
    assert len({tuple(images) for images in made.values()}) == 4


def test_a_run_of_another_data_set_is_refused(trained: Trained) -> None:
    with pytest.raises(UserError, match="was trained with data=shapes; name runs with data=digits"):
        trained_on_digits(trained.folder)


@pytest.mark.slow
def test_a_run_scores_on_new_material_what_its_last_evaluation_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("digits", tmp_path / "set", train_images=64, val_images=16, image_size=64, seed=SEED)
    config = config_of(tmp_path, tmp_path / "set")
    config.data.name, config.data.num_classes = "digits", 10
    config.data.train_images, config.data.val_images = 64, 16
    plan = make_plan(config)
    assert run_local(plan) == "finished"
    run = trained_on_digits(folder_of(plan))
    make_set("both new", tmp_path, images=16, image_size=64)
    scores = run.evaluate(tmp_path / "both new.json", tmp_path / "both new")
    assert scores.metrics == {name: run.epochs[name].iloc[-1] for name in scores.metrics}
    assert scores.metrics["mmAR"]  # a run this short finds little, but not nothing
    monkeypatch.setattr("sys.argv", ["digits_or_photographs", *[str(folder_of(plan))] * 2])
    assert digits_or_photographs.main() == 0
    printed = capsys.readouterr().out
    assert all(word in printed for name in SETS for word in name.split()) and "mean ± standard deviation" in printed
