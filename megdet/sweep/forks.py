"""Which runs of a sweep go on from a checkpoint of another one, so that epochs that they share are trained once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.jobs import stands_of
from megdet.planning.fork import Fork, beginning_of, shared_epochs
from megdet.planning.plan import Plan, earlier_plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.run_files import PLAN
from megdet.runs.status import Stand, Status
from megdet.sweep.points import Point


@dataclass(frozen=True)
class _Source:
    """A run that others can go on from."""

    plan: Plan
    epochs: frozenset[int]
    """At whose ends it has, or will have, a checkpoint."""


def with_forks(points: Sequence[Point]) -> list[Point]:
    """The same points, with the runs that their plans' first epochs are taken from, and with what these runs keep.

    A run that has not begun goes on from the run with which it shares the most epochs: one that there is already, or
    one that comes earlier in the sweep. Where that one does not come so far, it trains all by itself.
    """
    started = [point for point in points if point.is_started_by(point.asked.config.sweep.on_existing)]
    at_hand: set[str] = set()
    sources: dict[str, list[_Source]] = {}
    for source in _at_hand([point.plan for point in started if point.plan and _may_fork(point.plan)], besides=started):
        sources.setdefault(beginning_of(source.plan), []).append(source)
        at_hand.add(source.plan.run_id)
    forks: dict[str, Fork] = {}
    kept: dict[str, set[int]] = {}
    remarks: dict[str, str] = {}
    for plan in (point.plan for point in started if point.plan):
        alike = sources.setdefault(beginning_of(plan), [])
        fork = _longest(plan, alike) if _may_fork(plan) else None
        kept[plan.run_id] = _kept_before(plan)
        begin = _epochs_done(plan)
        if fork is None and _may_fork(plan):
            remarks[plan.run_id] = _missed(plan, [source.plan for source in alike if source.plan.run_id in at_hand])
        if fork:
            forks[plan.run_id], begin = fork, fork.epoch
            kept.setdefault(fork.run_id, set()).add(fork.epoch)
        alike.append(_Source(plan, frozenset(range(begin + 1, plan.schedule.epochs + 1))))
    planned = {
        id(point): replace(
            point,
            plan=replace(point.plan, fork=forks.get(run_id), keep_epochs=tuple(sorted(kept[run_id]))),
            why=point.why or remarks.get(run_id, ""),
        )
        for point in started
        if point.plan and (run_id := point.plan.run_id)
    }
    return [planned.get(id(point), point) for point in points]


def _missed(plan: Plan, runs: Sequence[Plan]) -> str:
    """Why a run does not go on from one with which it shares epochs; empty where there is none."""
    shared, run_id = max(((shared_epochs(run, plan), run.run_id) for run in runs), default=(0, ""))
    if not shared:
        return ""
    epochs = "its first epoch is" if shared == 1 else f"its first {shared} epochs are"
    return f"{epochs} those of {run_id}, which has no checkpoint of epoch {shared}: it trains all by itself"


def _longest(plan: Plan, sources: Iterable[_Source]) -> Fork | None:
    """Where the most epochs are shared; of equals, the first."""
    best: Fork | None = None
    for source in sources:
        shared = shared_epochs(source.plan, plan)
        epoch = max((epoch for epoch in source.epochs if epoch <= shared), default=0)
        if epoch > (best.epoch if best else 0):
            best = Fork(source.plan.run_id, epoch)
    return best


def _at_hand(plans: Sequence[Plan], *, besides: Sequence[Point]) -> Iterator[_Source]:
    """Runs beside those of `plans` that these can go on from, but for those that the sweep starts itself."""
    started = {point.plan.run_id for point in besides if point.plan}
    wanted = {(Path(plan.config.runs_dir), _alike(plan.run_id)) for plan in plans if not _is_anew(plan)}
    folders = [
        RunFolder(path.parent)
        for runs_dir in sorted({runs_dir for runs_dir, _ in wanted})
        for path in sorted(runs_dir.glob(f"*/{PLAN}"))
        if path.parent.name not in started and (runs_dir, _alike(path.parent.name)) in wanted
    ]
    stands = stands_of(folders)
    for folder in folders:
        try:
            plan = earlier_plan(folder.plan.read_text())
        except (UserError, OSError):
            continue  # damaged, or of another recipe: nothing to go on from
        yield _Source(plan, frozenset(_checkpoints(plan, folder, stands[folder])))


def _checkpoints(plan: Plan, folder: RunFolder, stand: Stand) -> Iterator[int]:
    """The epochs that a run which this sweep does not start has a checkpoint of, or will have."""
    to_come = stand.status.is_live
    for epoch in range(1, plan.schedule.epochs + 1):
        at_its_end = epoch == plan.schedule.epochs and (stand.status == Status.FINISHED or to_come)
        if at_its_end or folder.kept_checkpoint(epoch).exists() or (to_come and epoch in plan.keep_epochs):
            yield epoch


def _alike(run_id: str) -> tuple[str, ...]:
    """Batch, BN size and seed in a run's name: `b16`, `bn16`, `s0`; runs that share epochs have them in common."""
    parts = run_id.split("-")
    return (*parts[:2], *parts[-2:-1])


def _is_anew(plan: Plan) -> bool:
    return plan.config.sweep.on_existing == "force"


def _may_fork(plan: Plan) -> bool:
    return plan.config.sweep.fork and (_is_anew(plan) or not folder_of(plan).has_begun)


def _kept_before(plan: Plan) -> set[int]:
    """The epochs that a run was to keep when it was last started."""
    try:
        return set() if _is_anew(plan) else set(earlier_plan(folder_of(plan).plan.read_text()).keep_epochs)
    except (UserError, OSError):
        return set()


def _epochs_done(plan: Plan) -> int:
    state = None if _is_anew(plan) else folder_of(plan).state()
    return state.step // plan.schedule.steps_per_epoch if state else 0
