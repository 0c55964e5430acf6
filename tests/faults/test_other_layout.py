"""A run that was stopped on four ranks goes on on two, with accumulation: the same run, of the same batches."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from megdet.runs.folder import folder_of
from tests.faults.runs import a_plan, events_of, measured_by, weights_of
from tests.faults.test_kills import launch
from tests.training.test_run import wait_for_step

pytestmark = pytest.mark.slow


def test_a_run_goes_on_on_half_the_ranks_with_the_same_batch_and_bn_size(tmp_path: Path, shapes_root: Path) -> None:
    four, two = (a_plan(tmp_path, shapes_root, gpus=gpus) for gpus in (4, 2))
    quiet = a_plan(tmp_path / "quiet", shapes_root, gpus=4)
    assert launch(quiet, tmp_path / "quiet.txt").wait(timeout=200) == 0
    assert four.run_id == two.run_id and four.layout.accumulation == 1 and two.layout.gpus == 2
    started = launch(four, tmp_path / "log.txt")
    wait_for_step(four, 4)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 3, "interrupted"
    folder = folder_of(two)
    before, stopped_state = measured_by(folder), folder.state()
    assert stopped_state is not None
    assert launch(two, tmp_path / "log.txt").wait(timeout=200) == 0, (tmp_path / "log.txt").read_text()[-2000:]
    assert "resumed" in events_of(folder)
    stopped, ended = stopped_state, folder.state()
    assert ended is not None and stopped.gpu_s is not None and ended.gpu_s is not None
    assert stopped.gpu_s == pytest.approx(4 * (stopped.train_s + stopped.eval_s), abs=0.1)
    own_s = ended.train_s + ended.eval_s - stopped.train_s - stopped.eval_s
    assert ended.gpu_s == pytest.approx(stopped.gpu_s + 2 * own_s, abs=0.1), "each attempt counts on its own GPUs"

    after, undisturbed = measured_by(folder), measured_by(folder_of(quiet))
    assert after[: len(before)] == before, "what was made stays"
    assert [(line["kind"], line["step"]) for line in after] == [(line["kind"], line["step"]) for line in undisturbed]
    for line, other in zip(after, undisturbed, strict=True):
        assert line["lr"] == other["lr"] and line["loss"] == pytest.approx(other["loss"], rel=2e-2), line
    ours, theirs = weights_of(folder), weights_of(folder_of(quiet))
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], rtol=1e-2, atol=1e-3, msg=lambda said, name=name: f"{name}: {said}"
        )
