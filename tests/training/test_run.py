"""Whole runs as a launcher starts them: processes, signals, folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from megdet.config.locations import SWEEPS
from megdet.config.schema import Config
from megdet.data.data_set import read_data
from megdet.data.settings import DataSettings
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import MASK_METRICS, read_journal
from megdet.training.checkpoint import Checkpoint
from tests.tiny import tiny_model

EPOCHS = 3
STEPS_PER_EPOCH = 4


def config_of(tmp_path: Path, shapes_root: Path) -> Config:
    config = Config(batch=8, bn_size=4, gpus=1, seed=1, runs_dir=str(tmp_path / "runs"), log_every=1)
    config.schedule.epochs = EPOCHS
    config.schedule.milestones, config.schedule.factors = [2], [0.1]
    config.model = tiny_model()
    config.data = DataSettings(
        name="shapes", root=str(shapes_root), train_images=32, val_images=8, num_classes=6,
        min_size=64, max_size=107, workers=0,
    )  # fmt: skip
    config.cluster.gpus_per_node = 4
    config.tracking.enabled = False
    return config


def folder_of(plan: Plan) -> Path:
    return Path(plan.config.runs_dir) / plan.run_id


def start(plan: Plan) -> subprocess.Popen[str]:
    """A run of one rank, as by hand."""
    folder = folder_of(plan)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(plan.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "megdet.run", str(folder / "plan.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def weights_of(plan: Plan) -> dict[str, torch.Tensor]:
    return torch.load(folder_of(plan) / "checkpoint.pt", weights_only=True)["model"]


def wait_for_step(plan: Plan, step: int) -> None:
    for _ in range(600):
        if any(line["kind"] == "step" and line["step"] >= step for line in read_journal(RunFolder(folder_of(plan)))):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Plan:
    """A run that was never disturbed."""
    plan = make_plan(config_of(tmp_path_factory.mktemp("whole"), shapes_root))
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return plan


def test_a_finished_run_has_recorded_every_step_and_epoch(finished: Plan) -> None:
    lines = read_journal(RunFolder(folder_of(finished)))
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["step"] for line in steps] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert [line["epoch"] for line in epochs] == [1, 2, 3]
    started, ended = [line for line in lines if line["kind"] == "event"]
    assert (started["event"], ended["event"]) == ("started", "finished")
    [line, *_] = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    assert started["device"] == f"CPU ({line.split(': ')[1]})"
    assert started["data_sha256"] == read_data(finished.config.data).facts.fingerprint
    for line in epochs:
        assert 0 <= line["mmAP"] <= 100
        # 32 images, all their samples found: what was sampled cannot exceed what may be.
        assert 0 < line["rpn_positive"] + line["rpn_negative"] <= 32 * 32
        assert line["rpn_ratio_percent"] == pytest.approx(100 * line["rpn_positive"] / line["rpn_negative"])
        assert line["roi_positive"] > 0 and line["peak_memory_gb"] > 0 and line["images_per_s"] > 0
    state = RunFolder(folder_of(finished)).state()
    assert state is not None and state.status == "finished" and state.attempts == 1
    assert state.train_s == pytest.approx(epochs[-1]["train_s"])
    pictures = [path.name for path in (folder_of(finished) / "pictures").glob("*.png")]
    ids = {int(name.split("-")[1].removesuffix(".png")) for name in pictures if name.startswith("detections-")}
    assert ids and all(image_id % 2 == 0 for image_id in ids), "those of the validation images, which are even"
    proposals = [name.split("-")[1] for name in pictures if name.startswith("proposals-")]
    assert {epoch: proposals.count(epoch) for epoch in proposals} == {"epoch01": 4, "epoch02": 4, "epoch03": 4}


def test_a_run_records_what_every_table_and_figure_of_the_paper_measures(finished: Plan) -> None:
    last = read_journal(RunFolder(folder_of(finished)), kinds=("epoch",))[-1]
    measured = {path.stem: yaml.safe_load(path.read_text())["measure"] for path in SWEEPS.glob("*.yaml")}
    assert {"table1", "table2", "table3", "table4", "figure1", "figure4"} <= measured.keys()
    for name, numbers in measured.items():
        of_boxes = set(numbers.values()) - set(MASK_METRICS)  # this detector has no masks
        assert of_boxes and all(isinstance(last[number], float) for number in of_boxes), name


@pytest.mark.parametrize(
    "stop_at", [2, pytest.param(5, marks=pytest.mark.slow)], ids=["in_the_first_epoch", "in_the_second_epoch"]
)
def test_a_run_that_was_asked_to_stop_resumes_to_the_same_weights(
    stop_at: int, finished: Plan, tmp_path: Path, shapes_root: Path
) -> None:
    plan = make_plan(config_of(tmp_path, shapes_root))
    process = start(plan)
    wait_for_step(plan, stop_at)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    state = RunFolder(folder_of(plan)).state()
    assert state is not None and state.status == "interrupted"
    assert stop_at <= state.step < EPOCHS * STEPS_PER_EPOCH
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_run(plan, finished)


@pytest.mark.parametrize(
    ("checkpoint_every_min", "kept"),
    [pytest.param(10.0, STEPS_PER_EPOCH, marks=pytest.mark.slow), (1e-9, STEPS_PER_EPOCH + 1)],
    ids=["epochs", "steps"],
)
def test_a_run_that_was_killed_resumes_to_the_same_weights(
    checkpoint_every_min: float, kept: int, finished: Plan, tmp_path: Path, shapes_root: Path
) -> None:
    config = config_of(tmp_path, shapes_root)
    config.checkpoint_every_min = checkpoint_every_min
    plan = make_plan(config)
    process = start(plan)
    wait_for_step(plan, STEPS_PER_EPOCH + 2)
    process.kill()
    process.communicate(timeout=60)
    checkpoint = Checkpoint.read(folder_of(plan) / "checkpoint.pt", torch.device("cpu"))
    assert checkpoint is not None and checkpoint.state.step >= kept
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_run(plan, finished)


def assert_same_run(plan: Plan, finished: Plan) -> None:
    """Bit for bit the same weights; the journal tells each step once, with the same numbers."""
    expected = weights_of(finished)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(plan).items())
    measured = ("loss", "grad_norm", "lr", "mmAP", "rpn_positive", "roi_negative")
    ours, theirs = (
        [
            {key: line.get(key) for key in ("kind", "step", *measured)}
            for line in read_journal(RunFolder(folder_of(p)))
            if line["kind"] != "event"
        ]
        for p in (plan, finished)
    )
    assert ours == theirs
    state = RunFolder(folder_of(plan)).state()
    assert state is not None and state.status == "finished" and state.attempts == 2


def test_divergence_is_an_outcome_not_a_failure(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.lr.scale = 1e6
    plan = make_plan(config)
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    state = RunFolder(folder_of(plan)).state()
    assert state is not None and state.status == "diverged" and state.reason is not None
    assert not (folder_of(plan) / "failure.json").exists()


@pytest.mark.slow
def test_a_truncated_image_is_named_and_counted_and_the_run_finishes(tmp_path: Path, shapes_root: Path) -> None:
    root = tmp_path / "set"
    copy_tree(shapes_root, root)
    broken = sorted((root / "train2017").glob("*.jpg"))[3]
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    config = config_of(tmp_path, root)
    config.schedule.epochs = 1
    config.schedule.milestones, config.schedule.factors = [], []
    config.data.max_bad_images = 1
    plan = make_plan(config)
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    lines = read_journal(RunFolder(folder_of(plan)))
    assert [line["file"] for line in lines if line.get("event") == "bad_image"] == [f"train2017/{broken.name}"]
    assert next(line["bad_images"] for line in lines if line["kind"] == "epoch") == 1

    too_many = make_plan(replace(config, seed=2, data=replace(config.data, max_bad_images=0)))
    process = start(too_many)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert broken.name in output and "data.max_bad_images" in output and "Traceback" not in output


@pytest.mark.slow
def test_unreadable_images_are_counted_over_all_attempts(tmp_path: Path, shapes_root: Path) -> None:
    root = tmp_path / "set"
    copy_tree(shapes_root, root)
    broken = sorted((root / "train2017").glob("*.jpg"))[3]
    whole = broken.read_bytes()
    broken.write_bytes(bytes(16) + whole[16:])
    plan = make_plan(config_of(tmp_path, root))
    process = start(plan)
    wait_for_step(plan, plan.schedule.steps_per_epoch + 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    broken.write_bytes(whole)  # nothing else would be known of it by now
    process = start(plan)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    lines = read_journal(RunFolder(folder_of(plan)))
    assert "resumed" in [line.get("event") for line in lines]
    assert [line["file"] for line in lines if line.get("event") == "bad_image"] == [f"train2017/{broken.name}"]
    assert [line["bad_images"] for line in lines if line["kind"] == "epoch"] == [1] * EPOCHS


def copy_tree(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(tmp_path: Path, shapes_root: Path) -> None:
    root = tmp_path / "set"
    copy_tree(shapes_root, root)
    plan = make_plan(config_of(tmp_path, root))
    process = start(plan)
    wait_for_step(plan, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    before = folder_of(plan).joinpath("metrics.jsonl").read_text()
    annotations = root / "annotations" / "instances_train2017.json"
    content = json.loads(annotations.read_text())
    content["annotations"][0]["bbox"] = [1, 1, 20, 20]
    annotations.write_text(json.dumps(content))
    process = start(plan)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "was trained on other data of this name until now" in output and "Traceback" not in output
    assert folder_of(plan).joinpath("metrics.jsonl").read_text() == before


def test_a_wrong_number_of_images_is_one_message(tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.data.train_images = 40
    plan = make_plan(config)
    process = start(plan)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "data.train_images=32" in output and "Traceback" not in output


def test_an_error_leaves_its_traceback_rank_and_last_lines(tmp_path: Path, shapes_root: Path) -> None:
    plan = make_plan(config_of(tmp_path, shapes_root))
    folder = folder_of(plan)
    folder.mkdir(parents=True)
    (folder / "pictures").write_text("a file where a folder should be")
    process = start(plan)
    process.communicate(timeout=120)
    assert process.returncode == 1
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["rank"] == 0 and "Traceback" in failure["traceback"] and failure["log"]
    state = RunFolder(folder).state()
    assert state is not None and state.status == "failed"


@pytest.mark.slow
def test_two_local_ranks_train_to_the_same_weights_as_one(finished: Plan, tmp_path: Path, shapes_root: Path) -> None:
    config = config_of(tmp_path, shapes_root)
    config.gpus = 2
    plan = make_plan(config)
    assert plan.run_id == finished.run_id and plan.layout.gpus == 2
    assert run_local(plan) == "finished"
    expected = weights_of(finished)
    for name, value in weights_of(plan).items():
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-4), name
