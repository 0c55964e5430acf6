"""GPU-hours of a run that moved to another number of GPUs: each attempt counts on its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.analysis.figures.speed_up import points_of
from megdet.analysis.frames import load_runs
from megdet.runs.folder import RunFolder
from megdet.runs.prediction import Predictor
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.training.state import TrainingState
from tests.analysis.paper_runs import group_of
from tests.runs.fabricate import fabricate_run, plan_of
from tests.runs.folders import owned


def test_each_attempt_counts_on_its_own_gpus() -> None:
    state = TrainingState()
    state.go_on_with(4)
    state.past_train_s, state.eval_s = 100.0, 10.0
    assert state.gpu_s == 4 * 110
    state.go_on_with(4)  # requeued as it was
    state.past_train_s = 150.0
    state.go_on_with(2)
    state.past_train_s, state.eval_s = 250.0, 20.0
    assert state.gpu_s == 4 * 160 + 2 * 110


def test_a_checkpoint_of_before_they_were_counted_is_taken_for_one_of_the_same_gpus() -> None:
    state = TrainingState(past_train_s=100.0, eval_s=10.0, shared_s=30.0)
    state.go_on_with(4)
    assert state.gpu_s == 4 * 80, "another run has paid for 30"


def moved(runs: Path, *, seed: int = 0) -> RunFolder:
    """A finished run with a third of its time on 8 GPUs, where its plan has 4."""
    folder = RunFolder(fabricate_run(runs, {"batch": 16, "gpus": 4, "seed": seed}))
    state = folder.state()
    assert state is not None
    own_s = state.train_s + state.eval_s
    values = {**state.to_json(), "gpu_s": own_s / 3 * 8 + own_s * 2 / 3 * 4}
    owned(folder.path).write_state(RunState.from_json(values))
    return folder


def test_a_row_says_the_mean_of_the_gpus_that_a_run_had(tmp_path: Path) -> None:
    moved(tmp_path)
    fabricate_run(tmp_path, {"batch": 16, "gpus": 4, "seed": 1})
    assert sorted(load_runs(str(tmp_path)).runs["gpus"]) == [4, pytest.approx(5.33)]
    assert [point.gpus for point in points_of(group_of(tmp_path))] == [4], "a speed-up is that of one number of GPUs"


def test_nothing_is_predicted_from_the_seconds_of_several_layouts(tmp_path: Path) -> None:
    plan = plan_of({"batch": 16, "gpus": 4, "seed": 5}, "c" * 40)
    moved(tmp_path)
    prediction = Predictor(tmp_path).predict(plan)
    assert prediction is not None and prediction.source == "Table 3"
    fabricate_run(tmp_path, {"batch": 16, "gpus": 4, "seed": 1})
    prediction = Predictor(tmp_path).predict(plan)
    assert prediction is not None and prediction.source == "runs"


def test_a_state_without_the_count_has_the_gpus_of_its_plan() -> None:
    state = RunState(Status.FINISHED, 1, "2026-01-01T00:00:00+00:00", train_s=3000.0, eval_s=600.0)
    assert (state.gpus(4), state.gpu_hours(4)) == (4, 4.0)
