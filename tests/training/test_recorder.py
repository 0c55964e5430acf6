"""What rank 0 writes of an attempt, without training."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from megdet.config.schema import Config
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.status import Status
from megdet.training.assemble import recorder_of
from megdet.training.provenance import made_from
from megdet.training.recorder import ratios_percent
from megdet.training.state import TrainingState
from tests.runs.folders import owned


def begin(plan: Plan, folder: Path, *, step: int, pretrained: bool) -> None:
    recorder = recorder_of(plan, owned(folder), step=step)
    recorder.started(TrainingState(step=step), made_from=made_from(plan, pretrained=pretrained))
    recorder.ended(Status.INTERRUPTED, TrainingState(step=step))


def sha256(*files: Path) -> str:
    joined = b"".join(file.read_bytes() for file in files)
    return subprocess.run(["sha256sum"], input=joined, capture_output=True, check=True).stdout.decode()[:12]


def test_each_attempt_names_its_code_and_the_content_of_what_it_read(tmp_path: Path) -> None:
    train, val = (tmp_path / f"annotations/instances_{split}2017.json" for split in ("train", "val"))
    train.parent.mkdir()
    train.write_text("train")
    val.write_text("val")
    weights = tmp_path / "weights.pth"
    weights.write_text("weights")
    config = Config()
    config.cluster.gpus_per_node, config.tracking.enabled = 8, False
    config.data.root, config.model.backbone.weights = str(tmp_path), str(weights)
    plan = make_plan(config, commit="a", dirty=True)
    begin(plan, tmp_path, step=0, pretrained=True)
    first_data = sha256(train, val)
    val.write_text("other")
    weights.unlink()  # a checkpoint needs it no more
    begin(replace(plan, commit="b", dirty=False), tmp_path, step=7, pretrained=False)

    started, resumed = [line for line in read_journal(RunFolder(tmp_path)) if line["event"] in ("started", "resumed")]
    assert (started["commit"], started["dirty"], resumed["commit"], resumed["dirty"]) == ("a", True, "b", False)
    assert (started["data_sha256"], resumed["data_sha256"]) == (first_data, sha256(train, val))
    assert started["weights_sha256"] == "9a129038d9a0", "what `printf weights | sha256sum` begins with"
    assert "weights_sha256" not in resumed


def test_a_ratio_is_recorded_for_each_pair_of_positives_and_negatives_by_name() -> None:
    counts = {
        "rpn_positive": 3.0,
        "rpn_negative": 60.0,
        "mask_positive": 1.0,
        "mask_negative": 0.0,
        "roi_positive": 5.0,
    }
    assert ratios_percent(counts) == {"rpn_ratio_percent": 5.0, "mask_ratio_percent": None}
    assert ratios_percent({"tokens": 7.0}) == {}
