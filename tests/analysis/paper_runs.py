"""Run folders of every row of the paper's Tables 1 to 3, as a sweep of them leaves them, without training."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.frames import STEPS, load_runs
from megdet.analysis.rows import RowKey
from megdet.config.locations import SWEEPS
from megdet.planning.plan import Plan
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.fabricate import plan_of
from tests.runs.folders import owned

LONG = {"schedule.name": "long", "schedule.epochs": 18, "schedule.milestones": [11, 14, 17],
        "schedule.factors": [0.1, 0.1, 0.5]}  # fmt: skip
TINY = {"model.name": "tiny", "data.name": "shapes"}
UNDONE: dict[tuple[int, int, str], tuple[Status, int]] = {
    (8, 8, "normal"): ("running", 4),
    (64, 64, "normal"): ("interrupted", 6),
    (128, 32, "long"): ("failed", 2),
}
"""Rows that have not ended well yet: their last seed's state and epochs done."""


def group_of(source: Path | str) -> Group:
    """The runs of a folder or an MLflow URI that are all comparable."""
    (group,) = comparable_groups(load_runs(str(source), steps=STEPS))
    return group


def fabricate_tables(runs: Path, *, seeds: int = 3, only: Collection[RowKey] | None = None) -> list[Path]:
    """The folders of all rows of Tables 1 to 3 in `runs` (or `only` some), `seeds` of each, less one in every third.

    mmAP ends about the paper's and takes its steps at the drops of the learning rate; rows that fail in the paper
    diverge here (Table 2), and so does one seed of batch 32 without BN; UNDONE says which have not ended."""
    folders = []
    for place, (asked, paper) in enumerate(_rows()):
        if only is not None and key_of_ask(asked) not in only:
            continue
        for seed in range(max(1, seeds - (place % 3 == 2))):
            state, epochs = _state(asked, paper, seed=seed, last=seed == seeds - 1)
            values = {**asked, "seed": seed}
            if values.pop("schedule") == "long":
                values |= LONG
            folders.append(fabricate_curve(runs, values, paper=paper, status=state, epochs=epochs))
    return folders


def fabricate_curve(
    runs: Path, asked: dict[str, Any], *, paper: dict[str, Any], status: str = "finished", epochs: int | None = None
) -> Path:
    """One run that ends near the mmAP and hours of `paper` (`mmAP`: failed, `Time (h)`), on curves like real ones."""
    plan = plan_of(asked, "c0ffee" * 6 + "c0ff")
    folder = runs / plan.run_id
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.to_json())
    total, per_epoch = plan.schedule.epochs, plan.schedule.steps_per_epoch
    done = total if epochs is None else epochs
    chance = random.Random(plan.run_id)
    final = (36.0 if paper["mmAP"] == "failed" else paper["mmAP"]) + chance.gauss(0, 0.25)
    hours = paper.get("Time (h)", 10.0) * chance.uniform(0.97, 1.03)
    diverged = status == "diverged"
    with Journal(owned(folder)) as journal:
        journal.event("started", step=0, attempt=1)
        for epoch in range(1, done + 1):
            for tenth in range(1, 11):
                step = (epoch - 1) * per_epoch + per_epoch * tenth // 10
                journal.step(step, epoch=step / per_epoch, **_step(plan, step, chance, diverged and epoch == done))
            if diverged and epoch == done:
                break  # within this epoch: it has no evaluation
            mmAP = final * _share(plan, epoch) / _share(plan, total)
            journal.epoch(
                epoch, step=epoch * per_epoch, train_s=3600 * hours * epoch / total, eval_s=60.0 * epoch,
                lr=plan.schedule.lr_at(epoch * per_epoch - 1), loss=1 / epoch, mmAP=mmAP, AP50=1.6 * mmAP,
                rpn_ratio_percent=6 + epoch * 0.9, roi_ratio_percent=9 + epoch * 0.7,
            )  # fmt: skip
        if status != "running":
            journal.event(status, step=done * per_epoch)
    owned(folder).write_state(RunState(
        Status(status), attempts=1, started="2026-11-20T10:00:00+00:00", train_s=3600 * hours * done / total,
        ended=None if status == "running" else "2026-11-20T20:00:00+00:00", step=done * per_epoch,
    ))  # fmt: skip
    return folder


def key_of_ask(asked: Mapping[str, Any]) -> RowKey:
    """The row of what a file in `sweeps/` asks for."""
    return asked["batch"], asked["bn_size"], asked["schedule"], asked.get("lr.scale", 1.0)


def _rows() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What each row asks for and the paper's numbers; a row of two tables once."""
    rows: dict[RowKey, tuple[dict[str, Any], dict[str, Any]]] = {}
    for number in (3, 2):
        for row in yaml.safe_load((SWEEPS / f"table{number}.yaml").read_text())["rows"]:
            rows.setdefault(key_of_ask(row["ask"]), (row["ask"], row["paper"]))
    return list(rows.values())


def _state(asked: dict[str, Any], paper: dict[str, Any], *, seed: int, last: bool) -> tuple[Status, int | None]:
    if paper["mmAP"] == "failed":
        return "diverged", 1 + seed
    if (asked["batch"], asked["bn_size"]) == (32, 0) and seed == 1:
        return "diverged", 2
    if last and (key := (asked["batch"], asked["bn_size"], asked["schedule"])) in UNDONE:
        return UNDONE[key]
    return "finished", None


def _share(plan: Plan, epoch: int) -> float:
    """Of the final mmAP: rises fast, then with each drop of the learning rate; large batches begin worse."""
    steps = epoch * plan.schedule.steps_per_epoch
    drops = sum(milestone < steps for milestone, _ in plan.schedule.milestones)
    slow = 2.0 + math.log2(plan.config.batch) / 4
    return (1 - 0.14 - math.exp(-epoch / slow) * 0.8) + (0.0, 0.11, 0.13, 0.14)[min(3, drops)]


def _step(plan: Plan, step: int, chance: random.Random, diverging: bool) -> dict[str, float]:
    share = step / plan.schedule.steps_per_epoch
    loss = (0.55 + 1.2 * math.exp(-share / 1.5) + 0.01 * math.log2(plan.config.batch)) * chance.uniform(0.95, 1.05)
    growth = math.exp(6 * (share - math.floor(share - 1e-9))) if diverging else 1.0
    return {"lr": plan.schedule.lr_at(step - 1), "loss": loss * growth, "grad_norm": 1.5}
