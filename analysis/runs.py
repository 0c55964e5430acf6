"""Runs, read from run folders or from MLflow: the same records either way, complete or not."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.errors import UserError
from megdet.metrics import COCO_METRICS
from megdet.tracking.journal import PLAN, RunState, read_journal, run_folders
from megdet.tracking.mlflow import client_of
from megdet.tracking.settings import semantic_settings
from megdet.tracking.uri import absolute_uri, default_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURVES = ("mmAP", "loss", "lr", "train_s", "eval_s")
"""What of each epoch is read from MLflow unless asked otherwise; journals give everything."""
STEP_CURVES = ("step/epoch", "step/lr", "step/loss")
"""What of each step can be asked for besides."""

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class RunRecord:
    """One run: what was asked, where it stands, what came out."""

    run_id: str
    experiment_id: str
    experiment: str
    """The MLflow experiment that the run belongs to."""
    state: str
    """planned, running, finished, diverged, failed or interrupted."""
    settings: Mapping[str, str] = field(repr=False)
    """All that decides the result except the seed, flat, as text (`megdet.tracking.settings`)."""
    seed: int
    gpus: int
    commit: str
    dirty: bool
    train_s: float
    """Seconds of training so far, without evaluation."""
    epochs: tuple[Numbers, ...] = field(repr=False)
    """One per epoch done: `epoch`, the COCO numbers in percent, `train_s` (cumulative), `loss`, `lr`, ..."""
    final: Numbers
    """The COCO numbers after the last epoch; empty unless the run has finished."""
    steps: tuple[Numbers, ...] = field(repr=False, default=())
    """Of the steps that were logged: `step`, `epoch` (a fraction), `lr`, `loss` (None where not finite), ..."""
    reason: str = ""
    """One line on why the run diverged, failed or was interrupted."""
    files: Callable[[str], list[Path]] = field(repr=False, compare=False, default=lambda pattern: [])
    """The run's files whose path in its folder fits a pattern (`pictures/*.png`); from MLflow, fetched when asked."""

    @property
    def batch(self) -> int:
        return int(self.settings["batch"])

    @property
    def bn_size(self) -> int:
        return int(self.settings["bn_size"])

    @property
    def schedule(self) -> str:
        return self.settings["schedule"]

    @property
    def lr_scale(self) -> float:
        return float(self.settings.get("lr.scale", 1))

    @property
    def model(self) -> str:
        return self.settings["model"]

    @property
    def data(self) -> str:
        return self.settings["data"]

    @property
    def schedule_epochs(self) -> int:
        return int(self.settings["schedule.epochs"])

    @property
    def milestones(self) -> list[int]:
        """Epochs done when the learning rate drops."""
        return [int(epoch) for epoch in json.loads(self.settings.get("schedule.milestones", "[]"))]


def load_runs(source: str | None = None, *, curves: Sequence[str] = CURVES) -> list[RunRecord]:
    """The runs of a runs folder or an MLflow store, by run id; UserError where there are none.

    `source` is a folder, or an MLflow URI (`sqlite:///...`, `http://...`). None: ./runs if it exists, else
    MLFLOW_TRACKING_URI, else ./mlflow.db. `curves` are the numbers of epochs, and of
    steps as `step/...`, that are needed: MLflow takes a request for each; a folder gives all there are.
    """
    if source is None:
        here = default_uri(Path.cwd())
        source = "runs" if Path("runs").is_dir() else os.environ.get("MLFLOW_TRACKING_URI", here)
    runs = _from_mlflow(source, curves=curves) if "://" in source else _from_folder(Path(source))
    return sorted(runs, key=lambda run: run.run_id)


def select(runs: Sequence[RunRecord], **wanted: str | None) -> list[RunRecord]:
    """The runs whose attributes (experiment, model, data) are as wanted; None: any. UserError if none is left."""
    left = list(runs)
    for name, value in wanted.items():
        if value is not None:
            there = sorted({str(getattr(run, name)) for run in left})
            left = [run for run in left if getattr(run, name) == value]
            if not left:
                raise UserError(f"--{name} {value}: no such run; there is {', '.join(there)}")
    return left


def _from_folder(folder: Path) -> Iterable[RunRecord]:
    return [_from_run_folder(path) for path in run_folders(folder)]


def _from_run_folder(folder: Path) -> RunRecord:
    plan = json.loads((folder / PLAN).read_text())
    state = RunState.read(folder)
    journal = read_journal(folder)
    epochs = tuple(line for line in journal if line["kind"] == "epoch")
    finished = state is not None and state.state == "finished" and epochs
    return RunRecord(
        run_id=plan["run_id"],
        experiment_id=plan["experiment_id"],
        experiment=plan["config"]["tracking"]["experiment"],
        state=state.state if state else "planned",
        settings=semantic_settings(plan),
        seed=plan["config"]["seed"],
        gpus=plan["layout"]["gpus"],
        commit=plan["commit"],
        dirty=plan["dirty"],
        train_s=state.train_s if state else 0.0,
        epochs=epochs,
        final={name: epochs[-1].get(name) for name in COCO_METRICS} if finished else {},
        steps=tuple(line for line in journal if line["kind"] == "step"),
        reason=(state.reason or "") if state else "",
        files=lambda pattern: sorted(folder.glob(pattern)),
    )


def _from_mlflow(uri: str, *, curves: Sequence[str]) -> Iterable[RunRecord]:
    from mlflow.exceptions import MlflowException

    uri = absolute_uri(uri)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"{uri.removeprefix('sqlite:///')} does not exist; --from takes a runs folder or an MLflow URI")
    found: dict[str, RunRecord] = {}
    try:
        client = client_of(uri)
        names = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
        token = None
        while True:
            page = client.search_runs(list(names), max_results=1000, page_token=token)
            for run in page:
                if "run_id" in run.data.tags:  # made by megdet
                    record = _from_mlflow_run(client, run, names[run.info.experiment_id], curves=curves)
                    known = found.get(record.run_id)
                    # One run pushed to two experiments is still one run.
                    if known is None or known.train_s < record.train_s:
                        found[record.run_id] = record
            token = page.token
            if not token:
                break
    except MlflowException as error:
        raise UserError(f"MLflow at {without_password(uri)}: {str(error).splitlines()[0]}") from None
    if not found:
        raise UserError(f"MLflow at {without_password(uri)} has no run of megdet; push some with `megdet sync`")
    return found.values()


def _from_mlflow_run(client: MlflowClient, run: Run, experiment: str, *, curves: Sequence[str]) -> RunRecord:
    tags, metrics = run.data.tags, run.data.metrics
    final: dict[str, Any] = {}
    if tags.get("state") == "finished":
        final = {name: metrics.get(f"final/{name}") for name in COCO_METRICS}
    epochs: dict[int, dict[str, float]] = {}
    steps: dict[int, dict[str, float]] = {}
    for name in curves:
        for point in client.get_metric_history(run.info.run_id, name):
            if name.startswith("step/"):
                steps.setdefault(point.step, {"step": point.step})[name.removeprefix("step/")] = point.value
            else:
                epochs.setdefault(point.step, {"epoch": point.step})[name] = point.value
    return RunRecord(
        run_id=tags["run_id"],
        experiment_id=tags.get("experiment_id", ""),
        experiment=experiment,
        state=tags.get("state", "running"),
        settings={key: value for key, value in run.data.params.items() if key != "seed"},
        seed=int(run.data.params["seed"]),
        gpus=int(tags["gpus"]),
        commit=tags.get("commit", "unknown"),
        dirty=tags.get("dirty") == "True",
        train_s=float(tags.get("train_s", 0)),
        epochs=tuple(epochs[epoch] for epoch in sorted(epochs)),
        final=final,
        steps=tuple(steps[step] for step in sorted(steps)),
        reason=tags.get("reason", ""),
        files=partial(_artifacts, client, run.info.run_id),
    )


def _artifacts(client: MlflowClient, mlflow_id: str, pattern: str) -> list[Path]:
    """The artifacts that fit `pattern`, fetched into a folder that lasts as long as the process."""
    place = pattern.rpartition("/")[0]
    paths = [file.path for file in client.list_artifacts(mlflow_id, place) if not file.is_dir]
    wanted = sorted(path for path in paths if fnmatch(path, pattern))
    target = _fetched_here() / mlflow_id
    target.mkdir(exist_ok=True)
    return [Path(client.download_artifacts(mlflow_id, path, str(target))) for path in wanted]


@cache
def _fetched_here() -> Path:
    folder = tempfile.mkdtemp(prefix="megdet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
