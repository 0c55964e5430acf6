"""Canaries: one for each way of using a machine, no results, and their measurements are what is predicted from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megdet.errors import UserError
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary, canaries_of
from megdet.runs.canary_report import CanaryReport
from megdet.runs.code import frozen_code
from megdet.runs.folder import folder_of, run_folders
from megdet.runs.prediction import Prediction, Predictor, check_budget
from megdet.settings.own_part import TARGET
from tests.planning.test_cost import TINY
from tests.runs.fabricate import fabricate_run, plan_of

REPORT = CanaryReport(steps=20, step_s=0.5, loader_share=0.05, eval_gpu_s=640.0, peak_memory_gb=9.9)


def plan(runs: Path, **asked: Any) -> Plan:
    names = {key.replace("__", "."): value for key, value in asked.items()}
    return plan_of({"runs_dir": str(runs), "model": TINY, **names}, "")


def measured(canary: Canary, report: CanaryReport) -> None:
    owned = folder_of(canary.plan).claim("canary")
    owned.write_plan(canary.plan.to_json())
    report.write(owned)


def test_runs_that_differ_in_seed_schedule_or_rate_share_a_canary_and_others_do_not(tmp_path: Path) -> None:
    alike = [plan(tmp_path), plan(tmp_path, seed=1), plan(tmp_path, lr__scale=0.5), plan(tmp_path, schedule__epochs=18)]
    others = [
        plan(tmp_path, batch=32),
        plan(tmp_path, precision="bf16"),
        plan(tmp_path, sublinear=True),
        plan(tmp_path, gpus=4),
        plan(tmp_path, optimizer__name="mine", optimizer__custom={TARGET: "my.Lion"}),
        plan(tmp_path, optimizer__ema_decay=0.9998),
        plan(tmp_path, noise_scale_every=20),
        plan(tmp_path, data__max_size=1000),
    ]
    canaries = canaries_of([alike[0], *others, *alike[1:]])
    assert [canary.waiting for canary in canaries] == [tuple(alike), *((other,) for other in others)]


def test_a_canary_is_that_run_in_a_folder_of_its_own_untracked_and_short(tmp_path: Path) -> None:
    run = plan(tmp_path, tracking__uri="sqlite:///x.db")
    [canary] = canaries_of([run])
    assert (canary.plan.run_id, canary.plan.layout, canary.plan.schedule) == (run.run_id, run.layout, run.schedule)
    assert folder_of(canary.plan).path == tmp_path / ".canaries" / run.run_id and folder_of(canary.plan).is_canary
    assert not folder_of(run).is_canary
    assert not canary.plan.config.tracking.enabled and canary.plan.config.cluster.time_min == 30
    assert run.config.cluster.time_min is None, "the run itself is as it was"
    assert Plan.from_json(canary.plan.to_json()) == canary.plan


def test_a_canary_runs_the_copy_of_the_code_that_its_run_will(tmp_path: Path) -> None:
    run = replace(plan(tmp_path), code="0123456789ab")
    [canary] = canaries_of([run])
    assert frozen_code(canary.plan) == frozen_code(run) == tmp_path / ".code" / "0123456789ab"


def test_canaries_are_not_among_the_runs(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {})
    [canary] = canaries_of([plan(tmp_path)])
    measured(canary, REPORT)
    assert [folder.name for folder in run_folders(tmp_path)] == [plan_of({}, "").run_id]


def test_hours_are_predicted_from_what_a_canary_measured(tmp_path: Path) -> None:
    run = plan(tmp_path)
    [canary] = canaries_of([run])
    assert Predictor(tmp_path).predict(run) is None
    measured(canary, REPORT)
    hours = (run.schedule.steps * 0.5 + run.schedule.epochs * 640 / run.layout.gpus) / 3600
    assert Predictor(tmp_path).predict(run) == Prediction(
        pytest.approx(hours), pytest.approx(hours * run.layout.gpus), "canary"
    )
    long, other = plan(tmp_path, schedule__epochs=22), plan(tmp_path, precision="bf16")
    twice = Predictor(tmp_path).predict(long)
    assert twice is not None and twice.hours == pytest.approx(2 * hours)
    assert Predictor(tmp_path).predict(other) is None


def test_a_finished_run_counts_more_than_a_canary_of_the_same_layout(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {"model": TINY, "seed": 5}, hours=7.0)
    by_the_run = Predictor(tmp_path).predict(plan(tmp_path))
    [canary] = canaries_of([plan(tmp_path)])
    measured(canary, REPORT)
    assert by_the_run is not None and by_the_run.source == "runs"
    assert Predictor(tmp_path).predict(plan(tmp_path)) == by_the_run


def test_a_damaged_report_predicts_nothing(tmp_path: Path) -> None:
    [canary] = canaries_of([plan(tmp_path)])
    measured(canary, REPORT)
    (folder_of(canary.plan).path / "canary.json").write_text("{")
    assert Predictor(tmp_path).predict(plan(tmp_path)) is None


def test_a_budget_waits_for_what_canaries_measure_and_then_holds(tmp_path: Path) -> None:
    run = plan(tmp_path)
    [canary] = canaries_of([run])
    with pytest.raises(UserError, match=r"nothing is known .*\(sweep\.canary=true\)"):
        check_budget([run], 1.0)
    check_budget([run], 1.0, measured_later=True)
    measured(canary, REPORT)
    with pytest.raises(UserError, match=r"sweep.max_gpu_hours=1: the 1 runs to do"):
        check_budget([run], 1.0)


def test_what_is_known_already_is_refused_before_a_canary(tmp_path: Path) -> None:
    papers = plan_of({"runs_dir": str(tmp_path)}, "")
    with pytest.raises(UserError, match=r"sweep\.max_gpu_hours=5: "):
        check_budget([papers, plan(tmp_path)], 5.0, measured_later=True)


def test_a_slow_loader_is_said_with_what_to_turn(tmp_path: Path) -> None:
    run = plan(tmp_path)
    assert "slow loader" not in REPORT.describe(run)
    said = replace(REPORT, loader_share=0.45).describe(run)
    assert "slow loader: 45 % of a step" in said and "data.workers=4" in said
    assert f"9.9 GB a GPU ({run.memory_gb:.1f} predicted)" in said
