"""The plans of a sweep for programs: `sweep.dry_run=json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from megdet.planning.identity import plan_sha256_of
from megdet.runs.as_json import print_json
from megdet.runs.prediction import Prediction, predict_all
from megdet.sweep.points import Point


def print_plans(points: Sequence[Point]) -> None:
    """Each point with its plan, the status of its run and its predicted cost; docs/programs.md has the keys."""
    plans = [point.plan for point in points if point.plan]
    predicted = dict(zip((plan.run_id for plan in plans), predict_all(plans), strict=True))
    print_json({"points": [_point(point, predicted.get(point.plan.run_id if point.plan else "")) for point in points]})


def _point(point: Point, prediction: Prediction | None) -> dict[str, Any]:
    plan = json.loads(point.plan.to_json()) if point.plan else None
    is_known = prediction is not None and point.status is not None and not point.status.is_result
    return {
        "asked": list(point.asked.overrides),
        "run": point.plan.run_id if point.plan else None,
        "status": point.shown,
        "why": point.why,
        "plan_sha256": plan_sha256_of(plan) if plan else None,
        "hours_left": prediction.hours if prediction and is_known else None,
        "gpu_hours_left": prediction.gpu_hours if prediction and is_known else None,
        "hours_shared": prediction.shared_hours if prediction and is_known else None,
        "memory_gb_per_gpu": point.plan.memory_gb if point.plan else None,
        "plan": plan,
    }
