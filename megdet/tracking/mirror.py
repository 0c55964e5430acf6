"""MLflow as the mirror of run folders: pushed to, never read back, never waited for.

The journal is the truth. What a server that is down does not take stays in the run folder, and the next
push takes it along: each push sends what is new since the last one, as noted in the folder's mlflow.json.
MLflow is loaded (seconds) by the first push, not by importing this module.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from megdet.errors import UserError
from megdet.planning.identity import semantic_settings
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.runs.provenance import Provenance, provenance_of
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.tracking.client import (
    PATIENCE_S,
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
from megdet.tracking.payload import (
    REPLACED,
    Point,
    artifacts,
    data_sets,
    epoch_points,
    final_points,
    origin,
    run_name,
    step_points,
    tags,
)
from megdet.tracking.sweep_mirror import membership, refresh_sweeps
from megdet.tracking.uri import absolute_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

MLFLOW_STATUS = {
    Status.RUNNING: "RUNNING",
    Status.FINISHED: "FINISHED",
    Status.DIVERGED: "FINISHED",  # a result, not an error: told apart by the tag `outcome`
    Status.FAILED: "FAILED",
    Status.INTERRUPTED: "KILLED",
}
POINTS_PER_CALL = 1000  # MLflow's own limit for log_batch


def mirror(run_folder: RunFolder, uri: str, experiment: str) -> bool:
    """Push what the run folder holds and MLflow has not. False, with a warning, where that failed.

    A folder whose run has not started is left alone.
    """
    try:
        state = run_folder.state()
        if state is not None:
            with locked(run_folder.path):
                _Push(run_folder, absolute_uri(uri), experiment, state).go()
    except Exception as error:  # the mirror must never cost a training run
        warn(uri, error)
        return False
    return True


class Mirror:
    """Mirrors one run folder while the run is training, from a background thread."""

    def __init__(self, run_folder: RunFolder, uri: str, experiment: str) -> None:
        self._arguments = (run_folder, uri, experiment)
        self._wanted = threading.Event()
        self._closing = False
        self._up_to_date = False
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def push(self) -> None:
        """Ask for a push; returns at once. Requests made while one is under way become one."""
        self._wanted.set()

    def close(self, timeout_s: float = PATIENCE_S) -> bool:
        """Push a last time and wait for it; True if MLflow then has everything."""
        self._closing = True
        self._wanted.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("MLflow is too slow to take the end of the run; `megdet sync` pushes the rest")
            return False
        return self._up_to_date

    def _run(self) -> None:
        last, stood = False, None
        while not last:
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing
            self._up_to_date = mirror(*self._arguments)
            if self._up_to_date:
                stood = refresh_sweeps(*self._arguments, since=stood)


class _Push:
    """One push of one run folder."""

    def __init__(self, folder: RunFolder, uri: str, experiment: str, state: RunState) -> None:
        self.folder, self.uri, self.state = folder, uri, state
        self.plan: dict[str, Any] = folder.read_plan()
        self.began = milliseconds(state.started)
        """Tells a run from the one of the same id that it replaced: its settings are the same, its numbers are not."""
        self.client = client_of(uri)
        self.experiment_id = experiment_id_of(self.client, uri, experiment)

    def go(self) -> None:
        run, pushed = self._noted() or self._found_or_created()
        self.run_id: str = run.info.run_id
        lines = read_journal(self.folder)
        made_from = provenance_of(lines, self.plan)
        self._send_params_and_tags(run, made_from)
        self._link_data(run, made_from)
        schedule = self.plan["schedule"]
        steps = schedule["epochs"] * schedule["steps_per_epoch"]
        # Saved after each kind: a push that breaks off goes on from there.
        for kind, points in (
            ("epoch", epoch_points(lines, after=pushed["epoch"])),
            ("step", step_points(lines, after=pushed["step"], steps=steps)),
        ):
            self._send_points(points)
            pushed[kind] = max((point.step for point in points), default=pushed[kind])
            self._save(pushed)
        if not pushed["final"]:
            result = final_points(lines, self.plan, self.state)
            self._send_points(result)
            pushed["final"] = bool(result)
        for path, place in artifacts(self.folder, self.state):
            version = [path.stat().st_size, path.stat().st_mtime_ns]
            if pushed["artifacts"].get(path.name) != version:
                self.client.log_artifact(self.run_id, str(path), place)
                pushed["artifacts"][path.name] = version
        self._save(pushed)
        self._set_status(run)

    def _noted(self) -> tuple[Run, dict[str, Any]] | None:
        """The MLflow run that the folder's note names and what it already has."""
        known = noted_run(self.client, self.folder.path, self.uri, self.experiment_id)
        return known if known and known[0].info.start_time == self.began else None

    def _found_or_created(self) -> tuple[Run, dict[str, Any]]:
        """The MLflow run with this run's id and start, and what it already has; those begun earlier are replaced."""
        run_id = self.plan["run_id"]
        same_id = self.client.search_runs([self.experiment_id], f"tags.run_id = '{run_id}'")
        found = [run for run in same_id if run.info.start_time == self.began]
        if len(found) > 1:
            raise UserError(
                f"two MLflow runs have the tag run_id={run_id} ({found[0].info.run_id} and "
                f"{found[1].info.run_id}); delete one of them"
            )
        for run in same_id:
            if run.info.start_time < self.began:
                self._mark_replaced(run)
        if not found:
            return self._create(replaced=any(run.info.start_time > self.began for run in same_id))
        mlflow_id = found[0].info.run_id
        epoch, step = (
            max((point.step for point in self.client.get_metric_history(mlflow_id, key)), default=0)
            for key in ("train_s", "step/epoch")
        )
        return found[0], self._nothing_pushed(mlflow_id) | {"epoch": epoch, "step": step}

    def _mark_replaced(self, run: Run) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in REPLACED.items()])
        if run.info.status == "RUNNING":  # it was lost, and nobody else will say so
            self.client.update_run(run.info.run_id, status=MLFLOW_STATUS[Status.INTERRUPTED])

    def _create(self, *, replaced: bool) -> tuple[Run, dict[str, Any]]:
        run = self.client.create_run(
            self.experiment_id,
            start_time=self.began,
            run_name=run_name(self.plan),
            tags={"run_id": self.plan["run_id"], **(REPLACED if replaced else {})},
        )
        pushed = self._nothing_pushed(run.info.run_id)
        self._save(pushed)
        return run, pushed

    def _nothing_pushed(self, mlflow_id: str) -> dict[str, Any]:
        first_seen = (noted_in(self.folder.path) or {}).get(FOLDER, str(self.folder.path.resolve()))
        place = {"run_id": mlflow_id, "uri": self.uri, "experiment_id": self.experiment_id, FOLDER: first_seen}
        return place | {"epoch": 0, "step": 0, "final": False, "artifacts": {}}

    def _save(self, pushed: dict[str, Any]) -> None:
        note(self.folder.path, pushed)

    def _send_params_and_tags(self, run: Run, made_from: Provenance) -> None:
        known = run.data.tags
        settings = semantic_settings(self.plan) | {"seed": str(self.plan["config"]["seed"])}
        # Its origin is set once: a `megdet sync` from elsewhere must not overwrite that of training.
        wanted = tags(self.plan, self.state, made_from, self.folder)
        wanted |= membership(self.folder, self.uri, self.experiment_id)
        wanted |= {key: value for key, value in origin().items() if key not in known}
        if known.get("status") == REPLACED["status"]:  # a push of the old folder does not bring it back
            wanted |= REPLACED
        send_params_and_tags(self.client, run, params=settings, tags=wanted)

    def _link_data(self, run: Run, made_from: Provenance) -> None:
        """Link the data sets that MLflow's run has not."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        linked = run.inputs.dataset_inputs if run.inputs else []
        known = {(one.dataset.name, one.dataset.digest) for one in linked}
        new = [
            DatasetInput(
                # What `mlflow.data` makes of a local folder, without its import of numpy and pandas.
                Dataset(one.name, one.digest, "local", json.dumps({"uri": one.root}), profile=json.dumps(one.profile)),
                [InputTag("mlflow.data.context", one.context)],
            )
            for one in data_sets(self.plan, made_from)
            if (one.name, one.digest) not in known
        ]
        if new:
            self.client.log_inputs(self.run_id, datasets=new)

    def _send_points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        for start in range(0, len(metrics), POINTS_PER_CALL):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + POINTS_PER_CALL])

    def _set_status(self, run: Run) -> None:
        status = MLFLOW_STATUS[self.state.status]
        if status == run.info.status:
            return
        if status == "RUNNING":
            self.client.update_run(self.run_id, status=status)
        else:
            end = milliseconds(self.state.ended) if self.state.ended else None
            self.client.set_terminated(self.run_id, status, end)
