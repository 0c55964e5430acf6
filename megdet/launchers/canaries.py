"""Canaries of a launcher that waits for what it starts: they run first, then the runs whose canaries have passed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence

from megdet.errors import ExitCode, UserError
from megdet.launchers.jobs import Jobs
from megdet.planning.plan import Plan
from megdet.runs.canary import STEPS, Canary
from megdet.runs.canary_report import CanaryReport
from megdet.runs.folder import folder_of
from megdet.runs.prediction import check_budget, predict_all


def run_after_canaries(
    plans: Sequence[Plan], canaries: Sequence[Canary], run: Callable[[Sequence[Plan]], ExitCode]
) -> ExitCode:
    """`run` the canaries, and then those plans whose canary has passed; the exit code.

    Raises UserError where the runs would, by what was measured, take more than `sweep.max_gpu_hours`.
    """
    make_way(canaries)
    print(announced(canaries), flush=True)
    if run([canary.plan for canary in canaries]) == ExitCode.INTERRUPTED:
        return ExitCode.INTERRUPTED
    tell(canaries)
    held = {plan.run_id for canary in canaries if not canary.has_passed for plan in canary.waiting}
    left = [plan for plan in plans if plan.run_id not in held]
    check_budget(left, plans[0].config.sweep.max_gpu_hours)
    code = run(left) if left else ExitCode.OK
    return code or (ExitCode.RUN_FAILED if held else ExitCode.OK)


def make_way(canaries: Sequence[Canary]) -> None:
    """Remove what earlier canaries have left. Raises UserError where one of them is under way."""
    folders = [folder_of(canary.plan) for canary in canaries]
    for folder, stand in Jobs().stands_of(folders).items():
        if stand.status.is_live:
            raise UserError(
                f"a canary of these runs is under way ({stand.why}): wait for it, or megdet cancel {folder.path}"
            )
        if folder.path.exists():
            shutil.rmtree(folder.path)


def announced(canaries: Sequence[Canary]) -> str:
    """A line on what comes first."""
    which = ", ".join(f"{canary.plan.run_id} (for {len(canary.waiting)})" for canary in canaries)
    return f"{len(canaries)} {'canary' if len(canaries) == 1 else 'canaries'} first, of {STEPS} steps each: {which}"


def tell(canaries: Sequence[Canary]) -> None:
    """What canaries have measured, what the runs will take by that; and why some have failed."""
    look = Jobs().look_at([folder_of(canary.plan) for canary in canaries])
    for canary in canaries:
        folder = folder_of(canary.plan)
        report = CanaryReport.read(folder)
        if canary.has_passed:
            said = "training diverged, and nothing was measured"
            if report:
                said = f"{report.describe(canary.plan)}; by that the {len(canary.waiting)} behind it take "
                said += f"{_gpu_hours(canary, report):,.4g} GPU-hours"
            print(f"canary {canary.plan.run_id}: {said}", flush=True)
            continue
        if look.stand(folder).status.is_live:
            continue  # nobody watches it any more, and its job goes on
        why = look.diagnosis(folder)
        said = f"{why.cause.name}: {why.reason}" if why else look.stand(folder).why
        runs = "1 run is" if len(canary.waiting) == 1 else f"{len(canary.waiting)} runs are"
        print(f"canary {canary.plan.run_id} failed, {runs} not started: {said}", file=sys.stderr, flush=True)
        print(f"  megdet why {folder.path} says more", file=sys.stderr, flush=True)


def _gpu_hours(canary: Canary, report: CanaryReport) -> float:
    """Of the runs that wait: as its job has noted before they began, or as predicted now."""
    if report.gpu_hours is not None:
        return report.gpu_hours
    return sum(prediction.gpu_hours for prediction in predict_all(canary.waiting) if prediction)
