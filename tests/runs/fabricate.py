"""Run folders as training leaves them, without training: real plans, journals and states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megdet.config.schema import Config
from megdet.planning.plan import Plan, make_plan
from megdet.runs.journal import COCO_METRICS, Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.folders import owned


def plan_of(asked: dict[str, Any], commit: str) -> Plan:
    """The plan of the paper's experiment with the values of `asked` (`batch`, `lr.scale`, ...) on 16 nodes of 8."""
    config = Config(data=Config().data)
    config.cluster.nodes, config.cluster.gpus_per_node = 16, 8
    for name, value in asked.items():
        place: Any = config
        *path, last = name.split(".")
        for part in path:
            place = getattr(place, part)
        assert hasattr(place, last), name
        setattr(place, last, value)
    return make_plan(config, commit=commit)


def fabricate_run(
    runs: Path,
    asked: dict[str, Any],
    *,
    mmAP: float = 37.0,
    hours: float = 10.0,
    status: str = "finished",
    epochs: int | None = None,
    commit: str = "c0ffee" * 6 + "c0ff",
    reason: str | None = None,
    device: str = "",
) -> Path:
    """A run with a step line in each tenth of an epoch; mmAP rises linearly to its value at the last epoch."""
    plan = plan_of(asked, commit)
    folder = runs / plan.run_id
    owned(folder).write_plan(plan.to_json())
    total = plan.schedule.epochs
    done = total if epochs is None else epochs
    with Journal(owned(folder)) as journal:
        journal.event("started", step=0, attempt=1, **({"device": device} if device else {}))
        for epoch in range(1, done + 1):
            write_epoch(journal, plan, epoch, mmAP=mmAP, hours=hours)
        steps = done * plan.schedule.steps_per_epoch
        if status != "running":
            journal.event(status, step=steps)
    owned(folder).write_state(
        RunState(
            Status(status),
            attempts=1,
            started="2026-11-20T10:00:00+00:00",
            ended=None if status == "running" else "2026-11-20T20:00:00+00:00",
            train_s=3600 * hours * done / total,
            eval_s=60.0 * done,
            step=steps,
            reason=reason,
        )
    )
    return folder


def write_epoch(journal: Journal, plan: Plan, epoch: int, *, mmAP: float, hours: float) -> None:
    schedule = plan.schedule
    first = (epoch - 1) * schedule.steps_per_epoch
    for done in sorted({schedule.steps_per_epoch * tenth // 10 for tenth in range(1, 11)} - {0}):
        step = first + done
        journal.step(
            step, epoch=step / schedule.steps_per_epoch, lr=schedule.lr_at(step - 1), loss=2.0 / step, grad_norm=1.5
        )
    share = epoch / schedule.epochs
    journal.epoch(
        epoch,
        step=first + schedule.steps_per_epoch,
        train_s=3600 * hours * share,
        eval_s=60.0 * epoch,
        lr=schedule.lr_at(first + schedule.steps_per_epoch - 1),
        loss=1.0 / epoch,
        grad_norm=1.5,
        **{name: mmAP * share + place for place, name in enumerate(COCO_METRICS)},
    )
