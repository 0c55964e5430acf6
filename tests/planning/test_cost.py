"""Hours before a run: from finished runs, from the times of Table 3, and what a budget refuses."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.model.settings import BackboneSettings, ModelSettings
from megdet.planning import cost_fit
from megdet.planning.cost import TABLE3, CostModel
from megdet.planning.cost_fit import fit, left_out_errors, table3_times
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.prediction import Prediction, Predictor, check_budget
from tests.runs.fabricate import fabricate_run, plan_of

TINY = ModelSettings(name="tiny", backbone=BackboneSettings(name="tiny", weights="none", frozen_stages=0))


def predict(runs: Path, plan: Plan, *, steps_done: int = 0) -> Prediction:
    prediction = Predictor(runs).predict(plan, steps_done=steps_done)
    assert prediction is not None
    return prediction


def test_the_fit_gives_the_coefficients_that_planning_uses() -> None:
    for name, value in asdict(fit(table3_times())).items():
        assert getattr(TABLE3, name) == pytest.approx(value, abs=6e-4), name


def test_a_time_of_table_3_is_predicted_from_the_others_within_12_percent_in_the_median() -> None:
    times = table3_times()
    assert len(times) == 20
    for whole_layouts in (False, True):
        errors = [abs(error) for error in left_out_errors(times, whole_layouts=whole_layouts)]
        assert statistics.median(errors) < 0.12 and statistics.mean(errors) < 0.12


def test_table_3_as_a_whole_is_predicted_within_five_percent() -> None:
    times = table3_times()
    ours = sum(TABLE3.hours(time.plan) * time.plan.layout.gpus for time in times)
    theirs = sum(time.hours * time.plan.layout.gpus for time in times)
    assert ours == pytest.approx(theirs, rel=0.05)


def test_the_fit_finds_a_model_that_made_the_times() -> None:
    truth = CostModel(image_s=0.5, sublinear_s=0.2, bn_wait_s=0.05, constant_hours=1.0)
    made = [type(time)(time.label, time.plan, truth.hours(time.plan)) for time in table3_times()]
    assert asdict(fit(made)) == pytest.approx(asdict(truth), rel=1e-5)


def test_no_part_of_a_step_costs_less_than_nothing() -> None:
    truth = CostModel(image_s=0.5, sublinear_s=-0.1, bn_wait_s=0.05, constant_hours=1.0)
    made = [type(time)(time.label, time.plan, truth.hours(time.plan)) for time in table3_times()]
    assert all(value >= 0 for value in asdict(fit(made)).values())


def test_more_gpus_cost_fewer_hours_and_more_gpu_hours() -> None:
    plans = [plan_of({"batch": 256, "bn_size": 16, "gpus": gpus}, "") for gpus in (8, 16, 32, 64, 128)]
    predictions = [predict(Path("nowhere"), plan) for plan in plans]
    assert [p.source for p in predictions] == ["Table 3"] * 5
    hours, gpu_hours = [p.hours for p in predictions], [p.gpu_hours for p in predictions]
    assert hours == sorted(hours, reverse=True) and gpu_hours == sorted(gpu_hours)
    assert gpu_hours[-1] == 128 * hours[-1]


def test_of_another_model_or_data_nothing_is_said_until_a_run_is_finished(tmp_path: Path) -> None:
    modules = ({"model.context.scale": 2.0}, {"model.backbone.atrous": True}, {"data.train_scales": [0.8, 1.0]})
    for asked in ({"model": TINY}, {"data.name": "shapes"}, *modules):
        assert Predictor(tmp_path).predict(plan_of(asked, "")) is None
    fabricate_run(tmp_path, {"model": TINY}, status="interrupted", epochs=3)
    assert Predictor(tmp_path).predict(plan_of({"model": TINY, "seed": 1}, "")) is None
    fabricate_run(tmp_path, {"model": TINY, "seed": 2}, hours=3.0)
    assert predict(tmp_path, plan_of({"model": TINY, "seed": 1}, "")).source == "runs"


def test_a_finished_run_predicts_its_repetition_to_the_hour(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, hours=10.0)
    evaluation_h = 11 * 60 / 3600
    again = predict(tmp_path, plan_of({"batch": 16, "seed": 1}, ""))
    assert again.hours == pytest.approx(10 + evaluation_h) and again.source == "runs"
    assert again.gpu_hours == pytest.approx(8 * again.hours)
    twice_as_long = predict(tmp_path, plan_of({"batch": 16, "schedule.epochs": 22}, ""))
    assert twice_as_long.hours == pytest.approx(2 * again.hours)


def test_the_same_layout_is_the_better_witness_and_others_are_scaled(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"batch": 16}, hours=20.0)
    ratio = 20 / (predict(Path("nowhere"), plan_of({"batch": 16}, "")).hours - TABLE3.constant_hours)
    asked = {"batch": 256, "bn_size": 16}
    scaled = ratio * (TABLE3.hours(plan_of(asked, "")) - TABLE3.constant_hours)
    evaluation_h = 11 * 60 / 3600 / 16
    assert predict(tmp_path, plan_of(asked, "")).hours == pytest.approx(scaled + evaluation_h)
    fabricate_run(tmp_path, {**asked, "seed": 5}, hours=2.0)
    assert predict(tmp_path, plan_of(asked, "")).hours == pytest.approx(2 + 11 * 60 / 3600)


def test_what_is_done_of_a_run_is_not_counted_again(tmp_path: Path) -> None:
    plan = plan_of({}, "")
    whole = predict(tmp_path, plan)
    half = predict(tmp_path, plan, steps_done=plan.schedule.steps // 2)
    assert half.gpu_hours == pytest.approx(whole.gpu_hours / 2)
    folder = fabricate_run(tmp_path, {"runs_dir": str(tmp_path)}, status="interrupted", epochs=11)
    assert RunFolder(folder).state() is not None
    check_budget([plan_of({"runs_dir": str(tmp_path)}, "")], 0.1)


def test_a_damaged_plan_in_the_runs_folder_is_no_witness(tmp_path: Path) -> None:
    (fabricate_run(tmp_path, {}) / "plan.json").write_text("{")
    assert predict(tmp_path, plan_of({}, "")).source == "Table 3"


def test_a_sweep_over_budget_is_refused_with_the_numbers_and_the_points() -> None:
    plans = [plan_of({"batch": batch}, "") for batch in (16, 32, 64)]
    total = sum(predict(Path("runs"), plan).gpu_hours for plan in plans)
    check_budget(plans, None)
    check_budget(plans, total)
    with pytest.raises(UserError, match=r"sweep\.max_gpu_hours=500: the 3 runs") as caught:
        check_budget(plans, 500)
    message = str(caught.value)
    assert all(plan.run_id in message for plan in plans) and f"{total:,.4g} GPU-hours" in message
    enough = re.search(r"max_gpu_hours=(\d+) or more", message)
    assert enough
    check_budget(plans, float(enough.group(1)))


def test_a_budget_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(UserError, match="nothing is known"):
        check_budget([plan_of({"model": TINY}, "")], 1e9)


def test_the_command_says_where_more_gpus_stop_paying(capsys: pytest.CaptureFixture[str]) -> None:
    assert cost_fit.main(["--batch", "8192", "--bn-size", "16"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ *4096 ", out, re.MULTILINE) and "beyond 128 GPUs more stop paying" in out
    assert cost_fit.main(["--batch", "7", "--bn-size", "16"]) == 2
    assert "batch=7" in capsys.readouterr().err


def test_the_command_prints_the_fit_and_its_leave_one_out_error() -> None:
    done = subprocess.run([sys.executable, "-m", "megdet.planning.cost_fit"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout and "median" in done.stdout
    fitted, in_use = re.findall(r"CostModel\(.*\)", done.stdout)
    assert fitted == in_use
