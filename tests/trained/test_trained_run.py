"""What a trained run is good for once its training data is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import megdet
from megdet import cli
from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.runs.journal import COCO_METRICS, read_journal
from tests.trained.conftest import Trained


def recorded(run: Path) -> list[float | None]:
    """COCO's 12 numbers after the last epoch, as training has written them."""
    last = read_journal(RunFolder(run), kinds=("epoch",))[-1]
    return [last[name] for name in COCO_METRICS]


def stats_of(annotations: Path, detections: Path) -> list[float]:
    """pycocotools' own 12 numbers of a results file."""
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def test_megdet_itself_is_light_and_opens_runs_when_asked() -> None:
    program = (
        "import megdet, sys; assert not {'torch', 'pandas', 'hydra'} & set(sys.modules); megdet.load; megdet.load_runs"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="lode"):
        megdet.lode  # noqa: B018
    assert {"load", "load_runs"} <= set(dir(megdet))


def test_predictions_score_as_the_last_evaluation_of_training(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(trained.folder), str(trained.images), "--annotations", str(trained.annotations)]
    assert cli.main(["predict", *arguments, "--out", str(tmp_path), "--pictures", "0"]) == 0
    assert "8 images" in capsys.readouterr().out and not (tmp_path / "pictures").exists()
    stats = stats_of(trained.annotations, tmp_path / "detections.json")
    expected = [-1 if value is None else value / 100 for value in recorded(trained.folder)]
    assert stats == pytest.approx(expected, abs=5e-3), "but for coordinates that are rounded to hundredths"


def test_eval_gives_the_numbers_of_the_last_evaluation_and_by_class_their_parts(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(trained.folder), "--annotations", str(trained.annotations), "--images", str(trained.images)]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["metrics"].values()) == recorded(trained.folder)
    assert found["images"] == 8 and found["unreadable"] == {}
    for name in ("mmAP", "AP_small", "AP_medium", "mmAR", "AR_small"):
        own = [numbers[name] for numbers in found["by_class"].values() if numbers[name] is not None]
        assert found["metrics"][name] == pytest.approx(np.mean(own)), name
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "mmAP" in said and all(name in said for name in megdet.load(trained.folder).classes.names)


def test_a_run_tells_what_it_is(trained: Trained) -> None:
    run = megdet.load(trained.folder)
    assert (run.step, run.epoch, run.title) == (12, 3.0, trained.folder.name)
    assert list(run.epochs.index) == [1, 2, 3] and len(run.steps) == 12
    assert [run.epochs[name].iloc[-1] for name in ("mmAP", "AP50")] == recorded(trained.folder)[:2]
    assert run.classes.ids == (1, 2, 3, 5, 8, 13) and run.classes.names[0] == "circle"
    assert repr(run) == f"<{run.name}: tiny on shapes, mmAP {run.epochs['mmAP'].iloc[-1]:.1f}>"
    frames = megdet.load_runs(str(trained.folder.parent))
    assert list(frames.runs["run_id"]) == [run.name]


def test_its_plot_has_every_logged_loss_and_every_epochs_mmap(trained: Trained) -> None:
    run = megdet.load(trained.folder)
    losses, scores = run.plot().axes
    raw = losses.lines[0]
    assert list(raw.get_ydata()) == list(run.steps["loss"])
    assert list(scores.lines[0].get_xdata()) == [1, 2, 3]
    assert list(scores.lines[0].get_ydata()) == list(run.epochs["mmAP"])


def test_predictions_are_boxes_inside_their_images_with_names_and_ids(trained: Trained) -> None:
    run = megdet.load(trained.folder)
    files = sorted(trained.images.iterdir())
    found = run.predict(trained.images)
    assert [image.file for image in found] == files and found.unreadable == {}
    assert [image.image_id for image in found] == [int(file.stem) for file in files]
    some = run.predict(files[2:4])
    for image, alone in zip(found[2:4], some, strict=True):
        height, width = image.size
        with Image.open(image.file) as picture:
            assert picture.size == (width, height) and len(image) > 0
        assert (image.boxes >= 0).all() and (image.boxes <= [width, height] * 2).all()
        assert set(image.class_names) <= set(run.classes.names)
        assert np.allclose(alone.boxes, image.boxes, atol=1e-3), "whatever else is asked about"
    least = float(np.median(found[0].scores))
    fewer = run.predict(files[0], score=least)
    assert len(fewer[0]) == (found[0].scores >= least).sum() < len(found[0])
    assert len(found.frame) == sum(map(len, found)) and set(found.frame["class"]) <= set(run.classes.names)
    assert found[0]._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="between 0 and 1"):
        run.predict(trained.images, score=1.5)


def test_images_without_numbers_in_their_names_are_numbered_and_listed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *others = sorted(trained.images.iterdir())
    photos, out = tmp_path / "photos", tmp_path / "out"
    (photos / "sea").mkdir(parents=True)
    for name, file in (("b.png", source), ("sea/a.jpg", others[0]), ("sea/b.JPEG", others[1])):
        with Image.open(file) as picture:
            picture.save(photos / name)
    (photos / "notes.txt").write_text("no image")
    assert cli.main(["predict", str(trained.folder), str(photos), "--out", str(out), "--pictures", "2"]) == 0
    listed = json.loads((out / "images.json").read_text())
    assert {one["file_name"]: one["id"] for one in listed["images"]} == {"b.png": 1, "sea/a.jpg": 2, "sea/b.JPEG": 3}
    assert [one["name"] for one in listed["categories"]][:2] == ["circle", "square"]
    found = json.loads((out / "detections.json").read_text())
    assert {row["image_id"] for row in found} <= {1, 2, 3}
    assert {row["category_id"] for row in found} <= {1, 2, 3, 5, 8, 13}
    pictures = sorted(path.relative_to(out / "pictures").as_posix() for path in (out / "pictures").rglob("*.png"))
    assert pictures == ["b.png.png", "sea/a.jpg.png"]
    # Other images would leave a mixture of both, without a word.
    words = ["predict", str(trained.folder), "--out", str(out)]
    before = (out / "detections.json").read_bytes()
    capsys.readouterr()
    assert cli.main([*words, str(photos / "sea")]) == 2
    assert f"--out {out}: has what was found in other images (3, such as b.png)" in capsys.readouterr().err
    assert (out / "detections.json").read_bytes() == before
    assert cli.main([*words, str(photos), "--pictures", "0"]) == 0
    with pytest.raises(SystemExit):
        cli.main([*words, str(photos), "--pictures", "-1"])
    assert "write how many, 0 or more" in capsys.readouterr().err
    # The list can be given back, as COCO's list of test images.
    again = ["predict", str(trained.folder), str(photos), "--annotations", str(out / "images.json")]
    assert cli.main([*again, "--out", str(tmp_path / "again"), "--pictures", "0"]) == 0
    assert json.loads((tmp_path / "again" / "detections.json").read_text()) == found


def test_an_image_turned_by_exif_is_seen_upright(trained: Trained, tmp_path: Path) -> None:
    with Image.open(min(trained.images.iterdir())) as opened:
        picture = opened.resize((120, 64))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "upright.png")
    turned, upright = megdet.load(trained.folder).predict(tmp_path)
    assert turned.size == upright.size == (64, 120)
    assert np.array_equal(turned.boxes, upright.boxes)


def test_unreadable_images_are_one_line_and_exit_code_1(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *_ = sorted(trained.images.iterdir())
    photos = tmp_path / "photos"
    photos.mkdir()
    content = source.read_bytes()
    (photos / "good.jpg").write_bytes(content)
    (photos / "no.jpg").write_text("this is no image")
    (photos / "torn.jpg").write_bytes(content[: len(content) // 2])
    assert cli.main(["predict", str(trained.folder), str(photos), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "1 image, " in said.out
    assert "2 of 3 images cannot be read; the first is no.jpg: " in said.err and said.err.count("\n") == 1
    (photos / "good.jpg").unlink()
    assert cli.main(["predict", str(trained.folder), str(photos), "--out", str(tmp_path / "none")]) == 2
    assert "none of the" in capsys.readouterr().err


def test_an_unreadable_image_counts_in_the_score_as_one_where_nothing_was_found(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted(trained.images.iterdir())[:-1]:
        (photos / file.name).write_bytes(file.read_bytes())
    scores = megdet.load(trained.folder).evaluate(trained.annotations, photos)
    assert len(scores.unreadable) == 1 and scores.images == 8
    assert scores.metrics["AR_1"] <= recorded(trained.folder)[COCO_METRICS.index("AR_1")]  # type: ignore[operator]
    assert list(scores.frame.index) == list(megdet.load(trained.folder).classes.names)


def test_classes_go_by_name_and_those_that_a_run_does_not_know_are_refused(trained: Trained, tmp_path: Path) -> None:
    content = json.loads(trained.annotations.read_text())
    run = megdet.load(trained.folder)
    for category in content["categories"]:
        category["id"] += 100
    for annotation in content["annotations"]:
        annotation["category_id"] += 100
    renumbered = tmp_path / "renumbered.json"
    renumbered.write_text(json.dumps(content))
    assert list(run.evaluate(renumbered, trained.images).metrics.values()) == recorded(trained.folder)
    content["categories"][0]["name"] = "zebra"
    renumbered.write_text(json.dumps(content))
    with pytest.raises(UserError, match="not trained for: zebra; it knows circle, square"):
        run.evaluate(renumbered, trained.images)


def test_what_is_no_trained_run_is_refused_with_a_way_out(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        megdet.load(tmp_path)
    for name in ("plan.json", "checkpoint.pt"):
        (tmp_path / name).write_bytes((trained.folder / name).read_bytes())
    with pytest.raises(UserError, match=r'no classes\.json.*"categories"'):
        megdet.load(tmp_path).predict(trained.images)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"no checkpoint\.pt yet"):
        megdet.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        megdet.load(trained.folder).predict(tmp_path / "empty")
