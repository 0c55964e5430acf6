"""What MLflow is told of a run: tags, points of curves, files. Read from the run folder alone."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from megdet.planning.identity import plan_sha256_of
from megdet.runs.data_places import root_here
from megdet.runs.folder import RunFolder
from megdet.runs.journal import SCORES
from megdet.runs.provenance import ARROW, Provenance
from megdet.runs.run_files import BN_STUDY, GRADIENT_VARIANCE
from megdet.runs.state import RunState
from megdet.runs.status import Status

MAX_STEP_POINTS = 500
"""Of each per-step curve; the journal keeps them all."""
REPLACED = {"status": "replaced", "outcome": ""}
"""The tags of an MLflow run whose run was begun anew; another MLflow run has the result."""

Line = Mapping[str, Any]


class Point(NamedTuple):
    """One value of one curve. The time is the journal's, so that a point sent twice is one point."""

    name: str
    value: float
    time_ms: int
    step: int


class LinkedData(NamedTuple):
    """A data set of a run, as MLflow links it."""

    name: str
    digest: str
    """The fingerprint of the data, training and validation together."""
    root: str
    profile: Mapping[str, int]
    context: str
    """MLflow's word for what it is used for."""


def data_sets(plan: Mapping[str, Any], made_from: Provenance, folder: RunFolder) -> list[LinkedData]:
    """Training and validation images; none while the journal does not say what data it was."""
    data = plan["config"]["data"]
    return [
        LinkedData(
            name=f"{data['name']} {split}",
            digest=digest,
            root=root_here(data["root"], folder.path),
            profile={"images": data[f"{split}_images"], "classes": data["num_classes"]},
            context=context,
        )
        for digest in made_from.data_sha256.split(ARROW)
        if digest
        for split, context in (("train", "training"), ("val", "validation"))
    ]


def run_name(plan: Mapping[str, Any]) -> str:
    """The run's id, which commands take, and what its name leaves out: model and data."""
    return f"{plan['run_id']} {plan['config']['model']['name']} {plan['config']['data']['name']}"


def epoch_points(lines: Sequence[Line], *, after: int) -> list[Point]:
    """The values of the epochs beyond `after`, over the epoch."""
    epochs = [line for line in lines if line["kind"] == "epoch" and line["epoch"] > after]
    return [point for line in epochs for point in _points(line, "", step=line["epoch"])]


def step_points(lines: Sequence[Line], *, after: int, steps: int) -> list[Point]:
    """The values beyond step `after` over the step, thinned for a run of `steps` steps: `step/<name>`, `system/<name>`.

    MLflow shows metrics whose names begin with `system/` on a page of their own.
    """
    stride = max(1, -(-steps // MAX_STEP_POINTS))
    last, kept = after, []
    for line in lines:
        if line["kind"] == "step" and (line["step"] >= last + stride or (last == 0 and line["step"] > 0)):
            kept.append(line)
            last = line["step"]
    system = {line["step"]: line for line in lines if line["kind"] == "system"}
    points = [point for line in kept for point in _points(line, "step/", step=line["step"])]
    machine = [system[line["step"]] for line in kept if line["step"] in system]
    return points + [point for line in machine for point in _points(line, "system/", step=line["step"])]


def final_points(lines: Sequence[Line], plan: Mapping[str, Any], state: RunState) -> list[Point]:
    """The result as `final/<name>`: the last epoch's COCO numbers and the times. Of a finished, whole run only."""
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if state.status != Status.FINISHED or not epochs or epochs[-1]["epoch"] != plan["schedule"]["epochs"]:
        return []
    result = {name: epochs[-1].get(name) for name in SCORES}
    result |= {"train_s": state.train_s, "eval_s": state.eval_s, "time": epochs[-1]["time"]}
    return _points(result, "final/", step=0)


def tags(plan: Mapping[str, Any], state: RunState, made_from: Provenance, folder: RunFolder) -> dict[str, str]:
    """Ids, layout, code, data and state: what is not a setting, or can change over a run's attempts."""
    commit = made_from.commits[-1]
    facts = {
        "kind": "run",
        "run_id": plan["run_id"],
        "experiment_id": plan["experiment_id"],
        "plan_sha256": plan_sha256_of(plan),
        "folder": folder.path.resolve(),
        "commit": commit,
        "commits": ARROW.join(made_from.commits),
        "dirty": made_from.dirty,
        "code_sha256": made_from.code_sha256,
        "data_sha256": made_from.data_sha256,
        "weights_sha256": made_from.weights_sha256,
        "device": made_from.device,
        "mlflow.source.git.commit": commit,  # where MLflow's own pages look for it
        "status": state.status,
        "outcome": state.status if state.status.is_result else "",
        "reason": state.reason or "",
        "attempts": state.attempts,
        "steps_done": state.step,
        "train_s": round(state.train_s, 3),
        "notes": "\n".join(plan["notes"]),
        # MLflow sorts params as text; with zeros before them numbers are in order.
        "asked/batch": f"{plan['config']['batch']:07d}",
        "asked/bn_size": f"{plan['config']['bn_size']:07d}",
        "asked/lr": f"{plan['schedule']['lr']:013.8f}",
        **plan["layout"],
        "gpus": state.gpus(plan["layout"]["gpus"]),
    }
    return {key: str(value)[:5000] for key, value in facts.items()}  # MLflow's limit is 8000 bytes


def origin() -> dict[str, str]:
    """Who started the run, and the versions of Python and of the packages that decide numbers, as tags."""
    found = {
        "version.python": platform.python_version(),
        "mlflow.user": _user(),
        "mlflow.source.name": "launch.py",
        "mlflow.source.type": "LOCAL",
    }
    for package in ("torch", "torchvision", "megdet"):
        with suppress(metadata.PackageNotFoundError):
            found[f"version.{package}"] = metadata.version(package)
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "unknown"


def artifacts(folder: RunFolder, state: RunState) -> list[tuple[Path, str | None]]:
    """The run's files for MLflow and the folder each goes to; the journal once the run has stopped."""
    files = [folder.plan, folder.failure_file, folder.path / BN_STUDY, folder.path / GRADIENT_VARIANCE]
    if state.status != Status.RUNNING:
        files.append(folder.journal)
    found: list[tuple[Path, str | None]] = [(path, None) for path in files if path.exists()]
    return found + [(path, "pictures") for path in sorted(folder.pictures.glob("*.png"))]


def _points(line: Line, prefix: str, *, step: int) -> list[Point]:
    hidden = ("time", "step") if prefix else ("time", "step", "epoch")
    return [
        Point(prefix + name, float(value), round(1000 * line["time"]), step)
        for name, value in line.items()
        if isinstance(value, int | float) and name not in hidden
    ]
