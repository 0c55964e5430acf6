"""The end of a canary's job: what it has measured holds for the runs that wait for it, also where no launcher lives."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.resources import Resources, generous_min
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.canary_report import CanaryReport
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.prediction import Prediction, predict_all


def note_waiting(canary: Canary, canaries: Sequence[Canary]) -> None:
    """For the canary's job: the runs that wait for it, the budget, and all canaries of the sweep."""
    folder_of(canary.plan).note_waiting(
        {
            "plans": [json.loads(plan.to_json()) for plan in canary.waiting],
            "max_gpu_hours": canary.plan.config.sweep.max_gpu_hours,
            "canaries": [str(folder_of(one.plan).path) for one in canaries],
        }
    )


def let_go(owned: RunFolder, client: SlurmClient) -> str:
    """Correct the time limits of the jobs that wait for a canary; why they must not start, or nothing.

    Of several canaries that share a budget, the last one sees all that they have measured.
    """
    waiting, report = owned.waiting(), CanaryReport.read(owned)
    if waiting is None or report is None:
        return ""
    plans = [Plan.from_json(json.dumps(values)) for values in waiting["plans"]]
    predicted = predict_all(plans)
    replace(report, gpu_hours=sum(prediction.gpu_hours for prediction in predicted if prediction)).write(owned)
    limit: float | None = waiting["max_gpu_hours"]
    if limit is not None:
        reports = [CanaryReport.read(RunFolder(Path(path))) for path in waiting["canaries"]]
        total = sum(one.gpu_hours for one in reports if one and one.gpu_hours)
        if total > limit:
            return (
                f"sweep.max_gpu_hours={limit:g}: by what canaries have measured, the runs take {total:,.4g} GPU-hours; "
                "ask for less, or for more hours"
            )
    _limit_time(plans, predicted, client)
    return ""


def _limit_time(plans: Sequence[Plan], predicted: Sequence[Prediction | None], client: SlurmClient) -> None:
    """Short jobs start sooner. They were submitted with the longest limit, for users may only lower it."""
    needed: dict[str, int] = {}
    longest: dict[str, int] = {}
    for plan, prediction in zip(plans, predicted, strict=True):
        submission = Submission.read(folder_of(plan))
        if submission is None or prediction is None:
            continue  # not handed over yet: the launcher that does so knows what was measured
        array, most = submission.array, Resources.of(plan).time_min
        needed[array] = max(needed.get(array, 0), min(most, generous_min(prediction.alone_hours)))
        longest[array] = most
    for array, minutes in needed.items():
        if minutes < longest[array]:
            try:
                client.limit_time(array, minutes)
            except SlurmError as error:
                print(f"job {array} keeps its time limit: {error}", file=sys.stderr, flush=True)
