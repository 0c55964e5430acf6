"""Runs as an MLflow store has them, read in a few large requests: thousands of small ones take minutes."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from megdet.analysis.records import Record, Records
from megdet.errors import UserError
from megdet.planning.identity import WITH_OLD_NAMES
from megdet.runs.journal import SCORES
from megdet.runs.provenance import ARROW
from megdet.tracking.client import client_of
from megdet.tracking.payload import REPLACED
from megdet.tracking.uri import absolute_uri, sqlite_path, without_password, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PATIENCE_S = "120"
"""For one answer. A run under way must not wait for a server, and gives up within seconds; a reader has time."""
RUNS_A_PAGE = 200
"""With params, tags and metrics; a busy server takes over 10 s for 1,000 of them."""
FINAL = "final/"
"""Before the names of the numbers of a whole run."""
RUNS_A_REQUEST = 100
"""A server takes no more for one request of curves."""
POINTS_A_REQUEST = 25_000
"""A server leaves out what is beyond."""


class Point(NamedTuple):
    mlflow_id: str
    step: int
    value: float


def from_mlflow(uri: str, *, epochs: Sequence[str], steps: Sequence[str]) -> Records:
    """The runs of megdet in an MLflow store, with these numbers of epochs and steps.

    A run that was pushed to several experiments is there for each; the one that began last comes first, then the one
    that trained longest. UserError where the store has no run or does not answer.
    """
    uri = absolute_uri(uri, kept=False)
    database = sqlite_path(uri)
    if database and not database.exists():
        raise UserError(f"{database} does not exist; --from takes a runs folder or an MLflow URI")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", PATIENCE_S)
    from sqlalchemy.exc import SQLAlchemyError  # MLflow brings it, and lets its errors through

    try:
        client = client_of(uri)
    except SQLAlchemyError as error:
        raise UserError(f"MLflow at {without_password(uri)}: {str(error).splitlines()[0]}; name another") from None
    from mlflow.exceptions import MlflowException  # not above: client_of says how MLflow is to be loaded

    try:
        experiments = {experiment.experiment_id: experiment.name for experiment in client.search_experiments()}
        runs = [run for run in _all_runs(client, list(experiments)) if "run_id" in run.data.tags]  # made by megdet
        found = _current([run for run in runs if _is_whole(run)])
        ids = [run.info.run_id for run in found]
        of_epochs = _curves(client, ids, {name: name for name in epochs}, "epoch")
        of_steps = _curves(client, ids, {name: f"step/{name}" for name in steps}, "step")
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(
            f"MLflow at {without_password(uri)}: {without_secrets(str(error).splitlines()[0], uri)}"
        ) from None
    if not found:
        raise UserError(f"MLflow at {without_password(uri)} has no run of megdet; push some with `megdet sync`")
    records = [_record(run, experiments[run.info.experiment_id]) for run in found]
    return Records(records, of_epochs, of_steps, lambda run, pattern: _artifacts(client, run["mlflow_run_id"], pattern))


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
    """The newest attempt at each run in each experiment, newest first; replaced ones are skipped."""
    found: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=_progress):
        if run.data.tags.get("status") != REPLACED["status"]:
            found[run.data.tags["run_id"], run.info.experiment_id] = run
    return sorted(found.values(), key=_progress, reverse=True)


def _progress(run: Run) -> tuple[int, float]:
    return run.info.start_time, _train_s(run)


def _train_s(run: Run) -> float:
    return float(run.data.tags.get("train_s", 0))


def _record(run: Run, experiment: str) -> Record:
    tags, metrics = run.data.tags, run.data.metrics
    commit = tags.get("commit", "unknown")
    facts = {
        "run_id": tags["run_id"],
        "experiment_id": tags.get("experiment_id", ""),
        "experiment": experiment,
        "status": tags.get("status", "running"),
        "reason": tags.get("reason", ""),
        "seed": int(run.data.params["seed"]),
        "gpus": float(tags["gpus"]) if "." in tags["gpus"] else int(tags["gpus"]),
        "train_s": _train_s(run),
        "commits": tuple(tags.get("commits", commit).split(ARROW)),
        "dirty": tags.get("dirty") == "True",
        "code_sha256": tags.get("code_sha256", ""),
        "data_sha256": tags.get("data_sha256", ""),
        "weights_sha256": tags.get("weights_sha256", ""),
        "device": tags.get("device", ""),
        "plan_sha256": tags.get("plan_sha256", ""),
        "sweeps": tuple(filter(None, tags.get("sweep", "").split("; "))),
        "folder": "",
        "mlflow_run_id": run.info.run_id,
    }
    settings = {key: value for key, value in run.data.params.items() if key != "seed"}
    final: dict[str, float | None] = {}
    if facts["status"] == "finished":
        final = {name: metrics.get(FINAL + name) for name in SCORES}
    if any(value is not None for value in final.values()):  # the last epoch is there: each curve's newest value is its
        final = {**{name: value for name, value in metrics.items() if "/" not in name}, **final}
    return Record(facts, settings, final, tags)


def _curves(client: MlflowClient, mlflow_ids: Sequence[str], names: Mapping[str, str], over: str) -> pd.DataFrame:
    """The curves of all runs side by side, by the position of the run in `mlflow_ids`, `over` epochs or steps.

    `names`: of each column, MLflow's name of its curve.
    """
    places = {mlflow_id: place for place, mlflow_id in enumerate(mlflow_ids)}
    curves = []
    for column, name in names.items():
        chunks = (mlflow_ids[start : start + RUNS_A_REQUEST] for start in range(0, len(mlflow_ids), RUNS_A_REQUEST))
        points = [point for chunk in chunks for point in _points(client, chunk, name)]
        curve = pd.DataFrame(points, columns=["run", over, column]).drop_duplicates(["run", over], keep="last")
        curves.append(curve.assign(run=curve["run"].map(places)).set_index(["run", over])[column])
    return pd.concat(curves, axis=1).sort_index().reset_index() if curves else pd.DataFrame()


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
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each run, over each other
    target = _fetched_here() / mlflow_id
    target.mkdir(exist_ok=True)
    return [Path(client.download_artifacts(mlflow_id, path, str(target))) for path in wanted]


@cache
def _fetched_here() -> Path:
    folder = tempfile.mkdtemp(prefix="megdet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
