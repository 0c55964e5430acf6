"""From experiments asked for to runs: plan all, show them, leave out what cannot be or is done, run the rest.

A single experiment is a sweep of one. Whatever can go wrong before training (layouts, data, weights, tracking)
does so here, before anything starts.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from megdet.config import Config
from megdet.data.files import check_files, coco_files
from megdet.errors import UserError
from megdet.launchers.local import check_fits_here, is_being_run, resolve_cluster, run_folder, run_local
from megdet.plan import Plan, make_plan
from megdet.tracking.journal import RunState, State
from megdet.tracking.uri import absolute_uri, default_uri
from megdet.weights import ensure_weights

ALL_WELL, RUN_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 3
"""Exit codes of launch.py."""

DONE = ("done", "diverged")
"""States that are results: such a run is not started again."""


@dataclass(frozen=True)
class Asked:
    """One experiment, and the overrides that tell it from the others of its sweep."""

    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Point:
    """One experiment of a sweep, planned."""

    asked: Asked
    plan: Plan | None
    """None where it cannot be."""
    state: str
    """new, done, diverged, failed, interrupted, running, repeated or invalid."""
    why: str = ""


def run_points(asked: Sequence[Asked], *, run: Callable[[Plan], State] = run_local) -> int:
    """Plan, show and run experiments one after the other; the exit code."""
    sweep = asked[0].config.sweep
    points = plan_points(asked, to_run_here=not sweep.dry_run)
    _show(points)
    invalid = [point for point in points if point.state == "invalid"]
    if len(invalid) == len(points) or (invalid and sweep.on_invalid == "error"):
        return USER_ERROR
    if sweep.dry_run:
        return ALL_WELL
    plans = [p.plan for p in points if p.plan and p.state in ("new", "failed", "interrupted")]
    if not plans:
        return ALL_WELL
    try:
        for plan in plans:
            prepare(plan)
        return _run_all(plans, run)
    except UserError as error:
        return report(error)


def report(error: UserError) -> int:
    """Print a user's mistake; the exit code for it."""
    print(error, file=sys.stderr, flush=True)
    return USER_ERROR


def plan_points(asked: Sequence[Asked], *, to_run_here: bool) -> list[Point]:
    """The plan of each experiment, or why there is none; nothing is started or written."""
    commit, dirty = code_version()
    points: list[Point] = []
    seen: set[str] = set()
    for one in asked:
        try:
            plan = make_plan(_resolved(one.config), commit=commit, dirty=dirty)
            if to_run_here:
                check_fits_here(plan)
        except UserError as error:
            points.append(Point(one, None, "invalid", str(error)))
            continue
        state, why = state_of(plan)
        if plan.run_id in seen:
            state, why = "repeated", "the same run as one above: it differs in nothing that is learned"
        seen.add(plan.run_id)
        points.append(Point(one, plan, state, why))
    return points


def state_of(plan: Plan) -> tuple[str, str]:
    """Where a plan's run stands by its folder, and why."""
    folder = run_folder(plan)
    state = RunState.read(folder)
    if is_being_run(folder):
        return "running", "another launcher is at it"
    if state is None:
        return "new", ""
    if state.state == "running":
        return "interrupted", "its launcher is gone"
    return "done" if state.state == "finished" else state.state, state.reason or ""


def prepare(plan: Plan) -> None:
    """See to it that data and weights are there. Raises UserError."""
    config = plan.config
    root = Path(config.data.root)
    if config.data.name != "shapes":
        check_files(coco_files(root))
    ensure_weights(config.model.weights, config.model.backbone)
    if config.data.name == "shapes":
        # Imported here: it brings numpy, which planning does without.
        from megdet.data.shapes import generate_shapes

        generate_shapes(
            root,
            train_images=config.data.train_images,
            val_images=config.data.val_images,
            image_size=config.data.min_size,
            seed=0,
        )


def code_version() -> tuple[str, bool]:
    """The commit of this code and whether the code differs from it; `unknown` outside a git checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()


def _resolved(config: Config) -> Config:
    """The config with what depends on this machine and folder spelled out, so that a plan runs from anywhere."""
    config = copy.deepcopy(resolve_cluster(config))
    config.data.root = str(Path(config.data.root).expanduser().resolve())
    if config.tracking.enabled:
        uri = config.tracking.uri
        config.tracking.uri = absolute_uri(uri) if uri else default_uri(Path.cwd())
    return config


def _run_all(plans: Sequence[Plan], run: Callable[[Plan], State]) -> int:
    _prepare_tracking(plans)
    failed = 0
    for number, plan in enumerate(plans, start=1):
        print(f"[{number}/{len(plans)}] {run_folder(plan)}", flush=True)
        outcome = run(plan)
        print(f"[{number}/{len(plans)}] {plan.run_id}: {_outcome(plan, outcome)}", flush=True)
        if outcome in ("failed", "interrupted"):
            _mirror(plan)
        if outcome == "interrupted":
            return INTERRUPTED
        failed += outcome == "failed"
    return RUN_FAILED if failed else ALL_WELL


def _outcome(plan: Plan, outcome: State) -> str:
    state = RunState.read(run_folder(plan))
    reason = f" ({state.reason})" if state and state.reason else ""
    ways_on = {
        "failed": f"; see {run_folder(plan)}/failure.json and log-rank*.txt",
        "interrupted": "; the same command goes on from its checkpoint",
    }
    return outcome + reason + ways_on.get(outcome, "")


def _prepare_tracking(plans: Sequence[Plan]) -> None:
    """Once, before many ranks write."""
    places = {(p.config.tracking.uri, p.config.tracking.experiment) for p in plans if p.config.tracking.enabled}
    for uri, experiment in sorted(places, key=str):
        from megdet.tracking.mlflow import prepare as prepare_mlflow

        assert uri is not None, "resolved with the plan"
        prepare_mlflow(uri, experiment)


def _mirror(plan: Plan) -> None:
    """The last state of a run whose ranks could not tell MLflow themselves any more."""
    tracking = plan.config.tracking
    if tracking.enabled and tracking.uri:
        from megdet.tracking.mlflow import mirror

        mirror(run_folder(plan), tracking.uri, tracking.experiment)


def _show(points: Sequence[Point]) -> None:
    from megdet.plan_table import describe, print_table

    if len(points) == 1:
        describe(points[0])
    else:
        print_table(points)
