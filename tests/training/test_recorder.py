"""What rank 0 writes of an attempt, without training."""

from __future__ import annotations

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


def begin(plan: Plan, folder: Path, *, step: int, pretrained: bool, data_sha256: str) -> None:
    recorder = recorder_of(plan, owned(folder), step=step)
    made = made_from(plan, data_sha256=data_sha256, pretrained=pretrained)
    recorder.started(TrainingState(step=step), made_from=made)
    recorder.ended(Status.INTERRUPTED, TrainingState(step=step))


def test_each_attempt_names_its_code_and_the_content_of_what_it_read(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_text("weights")
    config = Config()
    config.cluster.gpus_per_node, config.tracking.enabled = 8, False
    config.model.backbone.weights = str(weights)
    plan = make_plan(config, commit="a", dirty=True)
    begin(plan, tmp_path, step=0, pretrained=True, data_sha256="1" * 12)
    weights.unlink()  # a checkpoint needs it no more
    begin(replace(plan, commit="b", dirty=False), tmp_path, step=7, pretrained=False, data_sha256="2" * 12)

    started, resumed = [line for line in read_journal(RunFolder(tmp_path)) if line["event"] in ("started", "resumed")]
    assert (started["commit"], started["dirty"], resumed["commit"], resumed["dirty"]) == ("a", True, "b", False)
    assert (started["data_sha256"], resumed["data_sha256"]) == ("1" * 12, "2" * 12)
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
