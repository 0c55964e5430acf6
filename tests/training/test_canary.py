"""Canaries on real ranks: what they leave, and that they come before the runs on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_launch import launch

pytestmark = pytest.mark.slow

SMALL = (
    "experiment=tiny", "batch=2", "bn_size=2", "gpus=1", "data.train_images=16", "data.val_images=4",
    "data.min_size=64", "data.max_size=107", "data.workers=0", "schedule.epochs=1", "schedule.milestones=[]",
    "schedule.factors=[]", "tracking.enabled=false", "sweep.canary=true",
)  # fmt: skip


def test_on_this_machine_canaries_come_first_and_what_fails_there_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf/optimizer/mine.yaml").write_text("name: mine\ncustom: {_target_: nowhere_here.Optimizer}\n")
    done = launch(tmp_path, "-m", *SMALL, "optimizer=sgd,mine")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "failed, 1 run is not started: " in done.stderr and "nowhere_here" in done.stderr, said
    [run] = [path.parent for path in (tmp_path / "runs").glob("*/plan.json")]
    assert json.loads((run / "state.json").read_text())["status"] == "finished", said
    order = [
        done.stdout.index(words) for words in ("2 canaries first", "by that the 1 behind it take", f"runs/{run.name}\n")
    ]
    assert order == sorted(order), said

    canary = tmp_path / "runs" / ".canaries" / run.name
    report = json.loads((canary / "canary.json").read_text())
    assert report["steps"] == 8, "an epoch of 16 images"
    assert 0 < report["step_s"] < 60 and 0 <= report["loader_share"] < 1 and report["eval_gpu_s"] > 0
    assert report["peak_memory_gb"] > 0.1
    # It has no result to be taken for one, and leaves no checkpoint.
    assert not list(canary.glob("checkpoint*")) and json.loads((canary / "state.json").read_text())["step"] == 0
    assert '"kind": "epoch"' not in (canary / "metrics.jsonl").read_text()
