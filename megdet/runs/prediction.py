"""Predicted time of a plan: from the finished runs and the canaries of its folder, else from Table 3."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.cost import TABLE3
from megdet.planning.identity import settings_in
from megdet.planning.layout import Layout
from megdet.planning.plan import Plan
from megdet.runs.canary_report import CanaryReport
from megdet.runs.folder import RunFolder, run_folder
from megdet.runs.run_files import CANARIES, PLAN
from megdet.runs.status import Status
from megdet.settings.counted import listed

TAKING_TIME = (
    "model.backbone.atrous", "model.large_kernel.size", "model.context.scale", "model.segmentation.weight",
    "model.mask", "model.roi_pool", "model.roi_heads.sampler", "data.train_scales",
)  # fmt: skip
"""Settings of the enhanced detector's modules (docs/enhanced.md)."""


RUNS, CANARY = "runs", "canary"
SOURCES = {RUNS: "finished runs", CANARY: "canaries"}
"""For a reader."""
NOT_KNOWN = (
    "no run of this model, data and precision is finished on such hardware, and Table 3 is of the paper's detector "
    "on GPUs"
)
"""Why there is no prediction."""
NAMED = 5
"""Runs that a message names; more are counted."""


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of what is left of a plan."""

    hours: float
    gpu_hours: float
    source: str
    """`runs`, `canary` or `Table 3`."""
    shared_hours: float = 0.0
    """More, where the run has to train the epochs that it is to take over from another one; not part of the others."""

    @property
    def alone_hours(self) -> float:
        """The hours that the run takes at the most: without those of another run."""
        return self.hours + self.shared_hours


@dataclass(frozen=True)
class _Measured:
    """A finished run, or a canary."""

    kind: str
    layout: Layout
    step_s: float
    eval_gpu_s: float
    """GPU-seconds of one evaluation."""
    source: str


class Predictor:
    """Predicts plans from the finished runs and the canaries of a folder, or, on GPUs, from Table 3.

    The rule for other layouts: seconds per step are those that the model of Table 3 gives, times the median ratio of
    measured to modelled seconds over the finished runs of the same model, data and precision; of those with the same
    layout alone, where there are any; of those, runs count more than canaries. Evaluation takes the same GPU-seconds
    on every layout.
    """

    def __init__(self, runs: Path) -> None:
        self._by_kind: dict[str, list[_Measured]] = {}
        for run in (*_finished(runs), *_canaries(runs)):
            self._by_kind.setdefault(run.kind, []).append(run)

    def predict(self, plan: Plan, *, steps_done: int = 0, steps_shared: int = 0) -> Prediction | None:
        """The cost of the remaining steps; None without anything to predict from.

        `steps_shared`: those after `steps_done` that another run trains.
        """
        shared = steps_shared / plan.schedule.steps
        left = 1 - min(steps_done / plan.schedule.steps, 1.0) - shared
        runs = self._by_kind.get(_kind_of(asdict(plan.config)), [])
        if runs:
            hours, source = _hours_by(runs, plan)
        elif is_like_the_paper(plan.config) and not _has_modules(plan.config) and plan.config.cluster.request_gpus:
            hours, source = TABLE3.hours(plan), "Table 3"
        else:
            return None
        return Prediction(hours * left, hours * left * plan.layout.gpus, source, shared_hours=hours * shared)


def check_budget(plans: Sequence[Plan], limit: float | None, *, measured_later: bool = False) -> None:
    """Raise UserError where runs are predicted to take more GPU-hours together than `sweep.max_gpu_hours`.

    `measured_later`: canaries come first, so that what nothing is known of counts for nothing yet.
    """
    if limit is None or not plans:
        return
    predicted = predict_all(plans)
    unknown = [plan.run_id for plan, prediction in zip(plans, predicted, strict=True) if prediction is None]
    if unknown and not measured_later:
        raise UserError(
            f"sweep.max_gpu_hours={limit:g}: nothing is known of what {listed(unknown, NAMED)} will take; finish "
            "one run of this model and data first, let canaries measure it (sweep.canary=true), or set "
            "sweep.max_gpu_hours=null"
        )
    gpu_hours = [prediction.gpu_hours if prediction else 0.0 for prediction in predicted]
    total = sum(gpu_hours)
    if total <= limit:
        return
    order = sorted(range(len(plans)), key=lambda i: -gpu_hours[i])
    worst = [f"{plans[i].run_id} {gpu_hours[i]:,.4g}" for i in order]
    fitting, spent = 0, 0.0
    while spent + gpu_hours[fitting] <= limit:
        spent += gpu_hours[fitting]
        fitting += 1
    raise UserError(
        f"sweep.max_gpu_hours={limit:g}: the {len(plans)} runs to do are predicted to take {total:,.4g} GPU-hours, "
        f"{total - limit:,.4g} more: {listed(worst, NAMED)}. Ask for less (the first {fitting} of them take "
        f"{spent:,.4g}), or set sweep.max_gpu_hours={math.ceil(total)} or more."
    )


class Predictors:
    """Predicts what each run's folder says is left; a folder of runs is read once."""

    def __init__(self) -> None:
        self._by_folder: dict[str, Predictor] = {}

    def predict(self, plan: Plan) -> Prediction | None:
        """None where there is nothing to go by."""
        runs = plan.config.runs_dir
        if runs not in self._by_folder:
            self._by_folder[runs] = Predictor(Path(runs))
        state = run_folder(runs, plan.run_id).state()
        goes_on = state is not None and plan.config.sweep.on_existing != "force"
        done = state.step if state and goes_on else 0
        shared = plan.fork.epoch * plan.schedule.steps_per_epoch if plan.fork and not done else 0
        return self._by_folder[runs].predict(plan, steps_done=done, steps_shared=shared)


def predict_all(plans: Iterable[Plan]) -> list[Prediction | None]:
    """The predictions for what each run's folder says is left."""
    predictors = Predictors()
    return [predictors.predict(plan) for plan in plans]


def _hours_by(runs: Sequence[_Measured], plan: Plan) -> tuple[float, str]:
    """The hours, and what they are predicted from."""
    alike = [run for run in runs if run.layout == plan.layout] or runs
    alike = [run for run in alike if run.source == RUNS] or alike
    ratio = statistics.median(run.step_s / TABLE3.step_s(run.layout) for run in alike)
    eval_s = statistics.median(run.eval_gpu_s for run in alike) / plan.layout.gpus
    seconds = plan.schedule.steps * ratio * TABLE3.step_s(plan.layout) + plan.schedule.epochs * eval_s
    return seconds / 3600, alike[0].source


def _finished(runs: Path) -> Iterable[_Measured]:
    for path in runs.glob(f"*/{PLAN}"):
        state = RunFolder(path.parent).state()
        if state is None or state.status != Status.FINISHED or not state.step or not state.train_s:
            continue
        try:
            plan = json.loads(path.read_text())
            layout, kind = Layout(**plan["layout"]), _kind_of(plan["config"])
            evaluations = plan["schedule"]["epochs"]
        except (ValueError, TypeError, KeyError):
            continue  # damaged, or of another version: it says nothing that can be used here
        if state.gpus(layout.gpus) != layout.gpus:
            continue  # its seconds are those of several layouts
        yield _Measured(kind, layout, state.train_s / state.step, state.eval_s / evaluations * layout.gpus, RUNS)


def _canaries(runs: Path) -> Iterable[_Measured]:
    for path in runs.glob(f"{CANARIES}/*/{PLAN}"):
        try:
            plan, report = json.loads(path.read_text()), CanaryReport.read(RunFolder(path.parent))
            layout, kind = Layout(**plan["layout"]), _kind_of(plan["config"])
        except (UserError, ValueError, TypeError, KeyError):
            continue  # as above
        if report:
            yield _Measured(kind, layout, report.step_s, report.eval_gpu_s, CANARY)


def _kind_of(config: Mapping[str, Any]) -> str:
    """What decides the time per image: model, image size, precision."""
    data = {key: config["data"].get(key) for key in ("name", "min_size", "max_size", "train_scales")}
    return json.dumps([config["model"], data, config["precision"], config["cluster"]["request_gpus"]], sort_keys=True)


def _has_modules(config: Config) -> bool:
    """Whether the detector has parts that take a time of their own, of which Table 3 knows nothing."""
    asked, plain = (settings_in(asdict(each)) for each in (config, Config()))
    return any(asked.get(key) != plain.get(key) for key in TAKING_TIME)


def is_like_the_paper(config: Config) -> bool:
    """Whether the times of Table 3 are those of this model and data, on GPUs of its kind."""
    model = config.model
    return (model.name, model.backbone.name, config.data.name) == ("r50_fpn", "resnet50", "coco2017")
