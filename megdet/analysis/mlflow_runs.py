"""Runs as an MLflow store has them, read in a few large requests: thousands of small ones take minutes."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from megdet.analysis.runs import RunRecord
from megdet.errors import UserError
from megdet.planning.identity import WITH_OLD_NAMES
from megdet.runs.journal import COCO_METRICS
from megdet.runs.provenance import ARROW
from megdet.tracking.client import client_of
from megdet.tracking.payload import REPLACED
from megdet.tracking.uri import absolute_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PATIENCE_S = "120"
"""For one answer. A run under way must not wait for a server, and gives up within seconds; a reader has time."""
RUNS_A_PAGE = 200
"""With params, tags and metrics; a busy server takes over 10 s for 1,000 of them."""
RUNS_A_REQUEST = 100
"""A server takes no more for one request of curves."""
POINTS_A_REQUEST = 25_000
"""A server leaves out what is beyond."""


class Point(NamedTuple):
    mlflow_id: str
    step: int
    value: float


Curves = Mapping[str, Mapping[str, Sequence[Point]]]
"""By MLflow's id of the run, then by the curve's name."""


def from_mlflow(uri: str, *, curves: Sequence[str]) -> list[RunRecord]:
    """The runs of megdet in an MLflow store, with these curves; UserError where it has none or does not answer.

    A run that was pushed to several experiments has a record in each, the one begun last and come furthest first.
    """
    uri = absolute_uri(uri)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"{uri.removeprefix('sqlite:///')} does not exist; --from takes a runs folder or an MLflow URI")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", PATIENCE_S)
    client = client_of(uri)
    from mlflow.exceptions import MlflowException  # not above: client_of says how MLflow is to be loaded

    try:
        experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
        runs = [run for run in _all_runs(client, list(experiments)) if "run_id" in run.data.tags]  # made by megdet
        found = _current([run for run in runs if _is_whole(run)])
        points = _curves(client, [run.info.run_id for run in found], curves)
    except MlflowException as error:
        raise UserError(f"MLflow at {without_password(uri)}: {str(error).splitlines()[0]}") from None
    if not found:
        raise UserError(f"MLflow at {without_password(uri)} has no run of megdet; push some with `megdet sync`")
    return [_record(client, run, experiments[run.info.experiment_id], points[run.info.run_id]) for run in found]


def _all_runs(client: MlflowClient, experiments: list[str]) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(experiments, max_results=RUNS_A_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_whole(run: Run) -> bool:
    """Whether its params and tags are there, which follow when a push has made the run; a line where they are not."""
    name = f"{run.data.tags['run_id']} (MLflow run {run.info.run_id})"
    if "model.rpn_nms" in run.data.params:
        print(f"left out: {name}: {WITH_OLD_NAMES}", file=sys.stderr)
        return False
    whole = "seed" in run.data.params and "gpus" in run.data.tags
    if not whole:
        print(f"left out: {name} has no settings yet; `megdet sync` pushes them", file=sys.stderr)
    return whole


def _current(runs: Iterable[Run]) -> list[Run]:
    """One for each run in each experiment, the one begun last and come furthest; such first. None that is replaced."""
    found: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=_progress):
        if run.data.tags.get("status") != REPLACED["status"]:
            found[run.data.tags["run_id"], run.info.experiment_id] = run
    return sorted(found.values(), key=_progress, reverse=True)


def _progress(run: Run) -> tuple[int, float]:
    return run.info.start_time, _train_s(run)


def _train_s(run: Run) -> float:
    return float(run.data.tags.get("train_s", 0))


def _record(client: MlflowClient, run: Run, experiment: str, curves: Mapping[str, Sequence[Point]]) -> RunRecord:
    tags, metrics = run.data.tags, run.data.metrics
    final: dict[str, Any] = {}
    if tags.get("status") == "finished":
        final = {name: metrics.get(f"final/{name}") for name in COCO_METRICS}
    epochs: dict[int, dict[str, float]] = {}
    steps: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for point in points:
            if name.startswith("step/"):
                steps.setdefault(point.step, {"step": point.step})[name.removeprefix("step/")] = point.value
            else:
                epochs.setdefault(point.step, {"epoch": point.step})[name] = point.value
    return RunRecord(
        run_id=tags["run_id"],
        experiment_id=tags.get("experiment_id", ""),
        experiment=experiment,
        state=tags.get("status", "running"),
        settings={key: value for key, value in run.data.params.items() if key != "seed"},
        seed=int(run.data.params["seed"]),
        gpus=int(tags["gpus"]),
        commit=tags.get("commit", "unknown"),
        dirty=tags.get("dirty") == "True",
        train_s=_train_s(run),
        epochs=tuple(epochs[epoch] for epoch in sorted(epochs)),
        final=final,
        steps=tuple(steps[step] for step in sorted(steps)),
        reason=tags.get("reason", ""),
        files=partial(_artifacts, client, run.info.run_id),
        sweeps=tuple(filter(None, tags.get("sweep", "").split("; "))),
        tags=tags,
        commits=tuple(tags.get("commits", tags.get("commit", "unknown")).split(ARROW)),
        data_sha256=tags.get("data_sha256", ""),
        weights_sha256=tags.get("weights_sha256", ""),
    )


def _curves(client: MlflowClient, mlflow_ids: Sequence[str], names: Sequence[str]) -> Curves:
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        for start in range(0, len(mlflow_ids), RUNS_A_REQUEST):
            for point in _points(client, mlflow_ids[start : start + RUNS_A_REQUEST], name):
                found[point.mlflow_id][name].append(point)
    return found


def _points(client: MlflowClient, mlflow_ids: Sequence[str], name: str) -> list[Point]:
    """One curve of many runs, in one request if the store has one for that."""
    from mlflow.utils.rest_utils import http_request

    store = client._tracking_client.store
    if hasattr(store, "get_metric_history_bulk"):  # a database
        history = store.get_metric_history_bulk(mlflow_ids, name, POINTS_A_REQUEST)
        points = [Point(each.run_id, each.step, each.value) for each in history]
    elif hasattr(store, "get_host_creds"):  # a server: what its own pages ask
        answer = http_request(
            store.get_host_creds(),
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
            "GET",
            params={"run_id": list(mlflow_ids), "metric_key": name, "max_results": POINTS_A_REQUEST},
        )
        if answer.status_code != 200:  # a server of another kind
            return _one_by_one(client, mlflow_ids, name)
        points = [Point(each["run_id"], each["step"], each["value"]) for each in answer.json()["metrics"]]
    else:
        return _one_by_one(client, mlflow_ids, name)
    if len(points) < POINTS_A_REQUEST:
        return points
    if len(mlflow_ids) == 1:
        return _one_by_one(client, mlflow_ids, name)
    middle = len(mlflow_ids) // 2
    return _points(client, mlflow_ids[:middle], name) + _points(client, mlflow_ids[middle:], name)


def _one_by_one(client: MlflowClient, mlflow_ids: Sequence[str], name: str) -> list[Point]:
    return [Point(each, p.step, p.value) for each in mlflow_ids for p in client.get_metric_history(each, name)]


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
