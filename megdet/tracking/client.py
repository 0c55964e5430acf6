"""The MLflow side that runs and sweeps share: client, experiment, one push at a time, one warning per cause.

MLflow is loaded (seconds) by the first push, not by importing this module.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.errors import UserError
from megdet.runs.causes import ERRORS_OF_CODE
from megdet.runs.files import sync_folder
from megdet.tracking.note import noted_in
from megdet.tracking.uri import (
    absolute_uri,
    artifact_location,
    sqlite_path,
    sqlite_uri,
    with_password,
    without_password,
    without_secrets,
)
from megdet.tracking.view import View, experiment_tags, page_of_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""How long a server is waited for at the start of a sweep, and again at the end of a run; never in between."""


def client_of(uri: str) -> MlflowClient:
    """A client that gives up within seconds, says nothing on its own and sends usage data to nobody."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # each try of each push; warn() says it once
    from mlflow import MlflowClient

    path = sqlite_path(uri)
    if path and not path.exists():
        _make_database(path)
    return MlflowClient(tracking_uri=with_password(uri))


def _make_database(path: Path) -> None:
    """MLflow fills a new database table by table, for seconds: who dies meanwhile, or looks in, is left with a part.

    So it is made beside its place, by one process at a time, and gets there whole.
    """
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        for left_over in path.parent.glob(f".{path.name}.making-*"):
            left_over.unlink()
        # A name of its own: MLflow remembers, by name, which databases it has filled.
        making = path.with_name(f".{path.name}.making-{secrets.token_hex(4)}")
        MlflowClient(tracking_uri=sqlite_uri(making)).search_experiments(max_results=1)
        making.replace(path)
        sync_folder(path.parent)


def prepare(uri: str, experiment: str, *, patience_s: float | None = PATIENCE_S) -> bool:
    """Create the database and the experiment, once, before many runs start to write.

    False, with a warning, where the server does not answer within `patience_s` (None: as long as it takes); UserError
    for a URI or an experiment that cannot be used.
    """
    uri = absolute_uri(uri)
    errors: list[Exception] = []

    def make() -> None:
        try:
            _present(client, _experiment(client, uri, experiment))
        except Exception as error:  # whatever the server or the network does, runs can go on
            errors.append(error)

    try:
        client = client_of(uri)  # makes a database, which takes its time once
    except UserError:
        raise
    except Exception as error:
        warn(uri, error)
        return False
    thread = threading.Thread(target=make, name="mlflow-prepare", daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        errors.append(TimeoutError(f"no answer within {patience_s:g} s"))
    for found in errors:
        if isinstance(found, UserError):
            raise found
        warn(uri, found)
    return not errors


def experiment_id_of(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment `name`, made where there is none. Raises UserError where it is deleted."""
    return str(_experiment(client, uri, name).experiment_id)


def _experiment(client: MlflowClient, uri: str, name: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # Another process may create it at the same moment.
        with suppress(MlflowException):
            client.create_experiment(name, artifact_location=artifact_location(uri))
        found = client.get_experiment_by_name(name)
        if found is None:
            raise RuntimeError(f"the experiment {name!r} could not be created")
        _present(client, found)
    _refuse_moved(uri, found.artifact_location)
    if found.lifecycle_stage == "deleted":
        raise UserError(f"the MLflow experiment {name!r} is deleted; restore it, or choose another tracking.experiment")
    return found


def _present(client: MlflowClient, experiment: Experiment) -> None:
    """Give an experiment what MLflow's pages show of it; what somebody changed in them stays."""
    for key, value in experiment_tags(experiment.experiment_id).items():
        if key not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, key, value)


def _refuse_moved(uri: str, artifacts: str) -> None:
    """Raise UserError where a database was moved or copied: MLflow would go on writing files into the old place."""
    here = artifact_location(uri)
    is_ours = here is not None and artifacts.startswith("file:") and Path(artifacts).name == Path(here).name
    if is_ours and artifacts != here:
        raise UserError(
            f"{without_password(uri)} was moved or copied: the files of its runs lie in {artifacts}, and would be "
            "written there. Set the database aside: `megdet sync` makes a new one of the run folders, which have "
            "everything"
        )


def noted_run(client: MlflowClient, folder: Path, uri: str, experiment_id: str) -> tuple[Run, dict[str, Any]] | None:
    """The run in this MLflow experiment that the folder notes, and the note; None where it is not there any more."""
    from mlflow.exceptions import MlflowException

    noted = noted_in(folder)
    # A note without a key is a damaged one; the run may have been removed for good.
    with suppress(KeyError, MlflowException):
        if noted and (noted["uri"], noted["experiment_id"]) == (uri, experiment_id):
            run = client.get_run(noted["run_id"])
            if run.info.lifecycle_stage == "active":
                return run, noted
    return None


def send_params_and_tags(client: MlflowClient, run: Run, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Give MLflow's run the params that it has not (MLflow refuses to change one), and the tags that changed."""
    from mlflow.entities import Param, RunTag

    new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
    changed = [RunTag(key, value) for key, value in tags.items() if value != run.data.tags.get(key, "")]
    if new or changed:
        client.log_batch(run.info.run_id, params=new, tags=changed)


def browse_hint(folder: Path) -> str:
    """What to type and open to see the MLflow experiment that a run's or sweep's folder is pushed to; may be empty."""
    noted = noted_in(folder)
    if noted is None:
        return ""
    uri = without_password(noted["uri"])
    page = f"/{page_of_runs(noted['experiment_id'], View.SWEEPS)}"
    if uri.startswith("http"):
        return f"to browse: {uri.rstrip('/')}{page}"
    return f"to browse: mlflow ui --backend-store-uri {shlex.quote(uri)}\nthen open: http://127.0.0.1:5000{page}"


def milliseconds(iso: str) -> int:
    """An ISO 8601 time as MLflow wants it."""
    return round(1000 * datetime.fromisoformat(iso).timestamp())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One push of a folder at a time, over all processes of this host: two would create two MLflow runs."""
    with (folder / ".mlflow.lock").open("w") as file:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


_REFUSAL = re.compile(r"Max retries exceeded .*\[Errno -?\d+\] ([^'\")]+)")
"""What the system answered, in the middle of urllib3's sentence of 300 characters."""

_warned: set[tuple[str, str]] = set()


def warn(uri: str, error: Exception) -> None:
    """Say once per process and cause that MLflow is behind; an error of the code, with where it is."""
    first_line = without_secrets((str(error).strip().splitlines() or [""])[0], uri)
    refusal = _REFUSAL.search(first_line)
    first_line = f"cannot connect ({refusal[1]})" if refusal else first_line[:300]
    kind = type(error).__name__
    text = first_line if isinstance(error, UserError) else f"{kind}: {first_line}"
    cause = text if isinstance(error, UserError) else kind
    if (uri, cause) not in _warned:
        _warned.add((uri, cause))
        log.warning(
            "MLflow at %s is not up to date: %s. The run folders have everything; %s.",
            without_password(uri),
            text,
            _way_out(uri, text),
            exc_info=error if kind in ERRORS_OF_CODE else None,
        )


_DAMAGED = re.compile(
    r"not a database|malformed|no such (table|column)|Can't locate revision|already exists|file is encrypted", re.I
)


def _way_out(uri: str, text: str) -> str:
    path = sqlite_path(uri)
    if path and _DAMAGED.search(text):
        return f"{path} is damaged, or was never made whole: move it away and `megdet sync` makes a new one of them"
    if path and "out-of-date database schema" in text:
        return f"`mlflow db upgrade {uri}`, with no run under way, and then `megdet sync` bring it up to date"
    return "`megdet sync` pushes it"
