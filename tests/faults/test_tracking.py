"""A tracking server that is slow, down or wrong: training waits for it no longer than is said."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.runs.folder import RunFolder
from megdet.runs.sweep_folder import record_sweep
from megdet.sweep.record import conclude_sweep
from megdet.tracking import mirror
from megdet.tracking.client import prepare, warn
from megdet.tracking.mirror import Mirror
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, when it loads


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


def test_a_silent_server_is_waited_for_as_long_as_is_said_at_start_and_end(
    silent_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(fabricate_run(tmp_path, {}))
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert not prepare(silent_server, "megdet", patience_s=1.0)
        assert time.monotonic() - began < 40, "loading MLflow included"
        assert "no answer within 1 s" in caplog.text
        pushing = Mirror(run, silent_server, "megdet")
        began = time.monotonic()
        pushing.push()
        assert time.monotonic() - began < 1
        assert not pushing.close(timeout_s=1.0)
    assert time.monotonic() - began < 20 and "`megdet sync` pushes the rest" in caplog.text


def test_concluding_a_sweep_pushes_what_its_runs_could_not(tmp_path: Path) -> None:
    uri = new_database(tmp_path / "store")
    runs = tmp_path / "runs"
    names = [fabricate_run(runs, {"seed": seed}).name for seed in (0, 1)]
    folder = record_sweep(
        runs, name="a", command="b", run_ids=names, uri=uri, experiment="megdet", settings={"batch": "16"}
    )
    assert prepare(uri, "megdet")
    conclude_sweep(folder)
    store = MlflowClient(tracking_uri=uri)
    (experiment,) = [found for found in store.search_experiments() if found.name == "megdet"]
    found = store.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert sorted(run.data.tags["run_id"] for run in found) == sorted(names)
    assert all(len(store.get_metric_history(run.info.run_id, "mmAP")) == 11 for run in found)
    conclude_sweep(folder)
    assert all(len(store.get_metric_history(run.info.run_id, "mmAP")) == 11 for run in found), "nothing twice"


def test_a_damaged_run_keeps_no_other_of_its_sweep_out_of_mlflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    uri = new_database(tmp_path / "store")
    runs = tmp_path / "runs"
    damaged, *others = [fabricate_run(runs, {"seed": seed}) for seed in range(3)]
    names = [run.name for run in (damaged, *others)]
    folder = record_sweep(
        runs, name="a", command="b", run_ids=names, uri=uri, experiment="megdet", settings={"batch": "16"}
    )
    assert prepare(uri, "megdet")
    (damaged / "plan.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        conclude_sweep(folder)
    assert "plan.json" in caplog.text and "mlflow" in capsys.readouterr().out
    store = MlflowClient(tracking_uri=uri)
    (experiment,) = [found for found in store.search_experiments() if found.name == "megdet"]
    found = store.search_runs([experiment.experiment_id], "tags.kind = 'run'")
    assert sorted(run.data.tags["run_id"] for run in found) == sorted(run.name for run in others)


def test_an_error_of_our_own_code_is_logged_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, uri = RunFolder(fabricate_run(tmp_path, {})), new_database(tmp_path / "store")

    def mistake(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(mirror, "provenance_of", mistake)
    with caplog.at_level(logging.WARNING):
        assert not mirror.mirror(run, uri, "megdet")
        assert "Traceback" in caplog.text and "test_tracking.py" in caplog.text
        caplog.clear()
        warn("http://elsewhere", ConnectionError("refused"))
    assert "Traceback" not in caplog.text
