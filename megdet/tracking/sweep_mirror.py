"""A sweep in MLflow: a parent run with a description, counts, and the sweep's files; its runs hang themselves below it.

Like a run's, its truth is a folder: what a server does not take is pushed the next time. Pushing what has not
changed costs neither MLflow nor its import.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from megdet.runs.sweep_folder import Sweep, sweeps_of
from megdet.tracking.client import (
    client_of,
    experiment_id_of,
    locked,
    milliseconds,
    noted_run,
    send_params_and_tags,
    warn,
)
from megdet.tracking.moved import FOLDER
from megdet.tracking.note import note, noted_in
from megdet.tracking.sweep_payload import (
    SweepRun,
    description,
    mlflow_status,
    runs_of,
    sweep_files,
    sweep_run_name,
    sweep_tags,
)
from megdet.tracking.uri import absolute_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"


def mirror_sweep(folder: Path, uri: str, experiment: str) -> bool:
    """Push what the sweep's folder and its runs say and MLflow has not. False, with a warning, where that failed."""
    try:
        with locked(folder):
            _push(folder, absolute_uri(uri), experiment)
    except Exception as error:  # the mirror must never cost a sweep
        warn(uri, error)
        return False
    return True


def refresh_sweeps(run_folder: RunFolder, uri: str, experiment: str, *, since: Status | None = None) -> Status | None:
    """Where a run stands; where that is not as `since`, its sweeps' counts and descriptions follow."""
    try:
        state = run_folder.state()
        stands = state.status if state else None
        for folder in sweeps_of(run_folder) if stands != since else ():
            mirror_sweep(folder, uri, experiment)
    except Exception as error:  # a damaged file must not cost a training run
        warn(uri, error)
        return since
    return stands


def membership(run_folder: RunFolder, uri: str, experiment_id: str) -> dict[str, str]:
    """The tags that put a run into its sweeps: all their names, and as parent the first of them that MLflow has."""
    folders = sweeps_of(run_folder)
    tags = {"sweep": "; ".join(dict.fromkeys(Sweep.read(folder).name for folder in folders))}
    for folder in folders:
        noted = noted_in(folder)
        if noted and (noted["uri"], noted["experiment_id"]) == (uri, experiment_id):
            return tags | {PARENT: noted["run_id"]}
    return tags


def _push(folder: Path, uri: str, experiment: str) -> None:
    sweep = Sweep.read(folder)
    runs = runs_of(folder, sweep)
    files = {str(path.relative_to(folder)): (path, place) for path, place in sweep_files(folder)}
    versions = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, (path, _) in files.items()}
    noted = noted_in(folder)
    text = description(sweep, runs, links=_links(runs))
    tags = sweep_tags(folder, sweep, runs) | {"mlflow.note.content": text}
    digest = hashlib.sha256(json.dumps([mlflow_status(runs), tags, versions], sort_keys=True).encode()).hexdigest()
    if noted and (noted["uri"], noted["experiment"], noted["digest"]) == (uri, experiment, digest):
        return
    client = client_of(uri)
    experiment_id = experiment_id_of(client, uri, experiment)
    run, pushed = _find(client, folder, sweep, uri, experiment_id) or (None, {})
    if run is None:
        run = client.create_run(
            experiment_id,
            start_time=milliseconds(sweep.launched),
            run_name=sweep_run_name(sweep),
            tags={"sweep_id": sweep.sweep_id, "kind": "sweep"},
        )
    mlflow_id = run.info.run_id
    first_seen = (noted_in(folder) or {}).get(FOLDER, str(folder.resolve()))
    place = {
        "run_id": mlflow_id, "uri": uri, "experiment": experiment, "experiment_id": experiment_id, FOLDER: first_seen,
    }  # fmt: skip
    # Noted at once: runs that are pushed meanwhile look here for their parent.
    note(folder, place | {"digest": "", "artifacts": pushed})
    send_params_and_tags(client, run, params=sweep.settings, tags=tags)
    for name, (path, to) in files.items():
        if pushed.get(name) != versions[name]:
            client.log_artifact(mlflow_id, str(path), to)
            pushed[name] = versions[name]
    _set_status(client, run, mlflow_status(runs), runs)
    note(folder, place | {"digest": digest, "artifacts": pushed})


def _find(
    client: MlflowClient, folder: Path, sweep: Sweep, uri: str, experiment_id: str
) -> tuple[Run, dict[str, Any]] | None:
    """The sweep's run in MLflow and the files that it already has."""
    if known := noted_run(client, folder, uri, experiment_id):
        run, noted = known
        return run, noted["artifacts"]
    wanted = f"tags.sweep_id = '{sweep.sweep_id}' AND tags.kind = 'sweep'"
    found = client.search_runs([experiment_id], wanted, order_by=["attributes.start_time ASC"], max_results=1)
    return (found[0], {}) if found else None


def _set_status(client: MlflowClient, run: Run, wanted: str, runs: list[SweepRun]) -> None:
    if wanted == run.info.status:
        return
    if wanted in ("RUNNING", "SCHEDULED"):
        client.update_run(run.info.run_id, status=wanted)
    else:
        ended = [milliseconds(one.state.ended) for one in runs if one.state and one.state.ended]
        # All may have ended before the sweep asked for them.
        client.set_terminated(run.info.run_id, wanted, max([run.info.start_time, *ended]) if ended else None)


def _links(runs: list[SweepRun]) -> dict[str, str]:
    """The pages of the runs that MLflow has, as links within its pages."""
    links = {}
    for run in runs:
        noted = noted_in(run.folder.path)
        if noted:
            links[run.run_id] = f"#/experiments/{noted['experiment_id']}/runs/{noted['run_id']}"
    return links
