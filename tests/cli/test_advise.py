"""`megdet advise`: what other batches need, by what a run has measured and by branches of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megdet import cli
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal, text_of
from tests.runs.fabricate import fabricate_run
from tests.test_launch import launch

TINY = (
    "experiment=tiny", "gpus=1", "batch=8", "bn_size=2", "images_per_gpu=2", "data.train_images=32",
    "data.val_images=4", "schedule.epochs=2", "schedule.milestones=[1]", "schedule.factors=[0.5]",
    "tracking.enabled=false",
)  # fmt: skip


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["advise", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def measured_run(runs: Path, scales: list[float | None], **asked: Any) -> Path:
    """A finished run of the paper's on its cluster, whose journal has these noise scales."""
    folder = fabricate_run(runs, {"batch": 64, "bn_size": 16, "noise_scale_every": 20, **asked})
    lines = read_journal(RunFolder(folder))
    for line, scale in zip((one for one in lines if one["kind"] == "epoch"), scales, strict=True):
        error = None if scale is None else scale / 10
        line |= {"noise_scale": scale, "noise_scale_error": error, "noise_scale.rpn": 5.0, "noise_scale.rpn_error": 1.0}
    (folder / "metrics.jsonl").write_text(text_of(lines))
    return folder


def test_a_noise_scale_becomes_epochs_steps_and_hours_of_each_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured_run(tmp_path / "runs", [64.0] * 11)
    found = answer(capsys, str(run), "--batches", "64,128,250")
    assert found["critical_batch"]["value"] == pytest.approx(64)
    assert [epoch["epoch"] for epoch in found["epochs"]] == list(range(1, 12))
    assert found["epochs"][0]["modules"] == {"rpn": {"value": 5.0, "error": 1.0}}
    own, double, impossible = found["batches"]
    assert own["epochs"]["value"] == pytest.approx(11)
    assert own["hours"] == pytest.approx(10, rel=0.05)  # as the run has taken, and on its GPUs
    assert own["gpu_hours"] == pytest.approx(own["hours"] * own["gpus"])
    assert double["epochs"]["value"] == pytest.approx(11 * 1.5)  # (1 + 128/64) / (1 + 64/64)
    assert double["steps"] == pytest.approx(own["steps"] * 0.75)
    assert double["predicted_from"] == "runs"
    assert impossible["hours"] is None and "250" in impossible["why"]  # no whole BN batches of 16


def test_epochs_without_a_signal_are_shown_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured_run(tmp_path / "runs", [64.0] * 10 + [None])
    assert cli.main(["advise", str(run)]) == 0
    out = capsys.readouterr().out
    assert "critical batch over 10 epochs: 64.0 ± 2.0" in out
    assert "11" in out and "?" in out


def test_a_run_that_has_measured_nothing_is_told_how_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = fabricate_run(tmp_path / "runs", {"batch": 64, "bn_size": 16})
    assert cli.main(["advise", str(plain)]) == 2
    assert "noise_scale_every=20" in capsys.readouterr().err
    one = fabricate_run(tmp_path / "one", {"batch": 16, "bn_size": 16, "noise_scale_every": 20})
    assert cli.main(["advise", str(one)]) == 2
    assert "one gradient a step" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_measures_is_branched_over_equal_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = launch(tmp_path, *TINY, "noise_scale_every=2")
    assert done.returncode == 0, done.stdout + done.stderr
    plain = launch(tmp_path, *TINY, "runs_dir=plain")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    [run], [unmeasured] = ((tmp_path / name).glob("b8-*") for name in ("runs", "plain"))
    assert run.name == unmeasured.name  # measuring is no other experiment, and learns the same
    learned = [
        [(line["loss"], line["grad_norm"], line["mmAP"]) for line in read_journal(RunFolder(one), kinds=("epoch",))]
        for one in (run, unmeasured)
    ]
    assert learned[0] == learned[1]

    monkeypatch.chdir(tmp_path)
    found = answer(capsys, run.name, "--branch", "4,8")
    assert [epoch["epoch"] for epoch in found["epochs"]] == [1, 2]
    assert found["epochs"][0]["modules"].keys() == {"backbone", "fpn", "rpn", "roi_heads"}
    branches = found["branches"]
    assert [(one["batch"], one["steps"], one["status"]) for one in branches] == [(4, 8, "finished"), (8, 4, "finished")]
    plans = [RunFolder(tmp_path / "runs" / one["run"]).read_plan() for one in branches]
    # The learning rate is where the run has left it, by the linear rule.
    [own] = RunFolder(run).read_plan()["schedule"]["milestones"]
    before = RunFolder(run).read_plan()["schedule"]["lr"]
    assert [plan["schedule"]["lr"] for plan in plans] == pytest.approx([before * own[1] / 2, before * own[1]])
    assert all(plan["config"]["model"]["init_from"] == str(run) for plan in plans)
    # Asked for again, nothing is trained.
    journals = [(tmp_path / "runs" / one["run"] / "metrics.jsonl").read_bytes() for one in branches]
    assert answer(capsys, run.name, "--branch", "4,8")["branches"] == branches
    assert journals == [(tmp_path / "runs" / one["run"] / "metrics.jsonl").read_bytes() for one in branches]
