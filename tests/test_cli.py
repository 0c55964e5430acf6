from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet import cli
from megdet.tracking import mlflow
from megdet.tracking.journal import RunState
from tests.tracking.databases import new_database
from tests.tracking.fabricate import fabricate_run

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(autouse=True)
def warnings_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "_warned", set())


def test_status_lists_every_run_with_its_state_progress_and_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.04, hours=39.5)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, state="diverged", epochs=1, reason="loss is NaN")
    fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}, state="running", epochs=4)
    planned = fabricate_run(tmp_path, {"batch": 256, "bn_size": 32})
    (planned / "state.json").unlink()
    assert cli.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    cells = {name.split("-normal")[0]: [cell.strip() for cell in line.split("│")[2:-1]] for name, line in rows.items()}
    assert cells["b16-bn16"] == ["finished", "11/11", str(11 * (118287 // 16)), "37.0", "39.5", ""]
    assert cells["b64-bn0"][:2] == ["diverged", "1/11"] and cells["b64-bn0"][-1] == "loss is NaN"
    assert cells["b32-bn32"][:2] == ["running", "4/11"] and cells["b32-bn32"][-1] == ""
    assert cells["b256-bn32"][:2] == ["planned", "0/11"]
    assert "1 finished" in out and "1 planned" in out


def test_a_running_run_that_has_gone_quiet_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fabricate_run(tmp_path, {}, state="running", epochs=1)
    now = time.time()
    monkeypatch.setattr(cli.time, "time", lambda: now + 3 * 3600)
    cli.main(["status", str(tmp_path)])
    assert "nothing written for 3.0 h" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "sync"])
def test_a_folder_without_runs_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert cli.main([command, str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "no run" in said.err


def test_a_damaged_plan_is_one_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_run(tmp_path, {}, epochs=0)
    (folder / "plan.json").write_text("{")
    assert cli.main(["status", str(tmp_path)]) == 2
    assert "plan.json is damaged" in capsys.readouterr().err


def test_sync_pushes_what_was_recorded_while_the_server_was_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    runs = tmp_path / "runs"
    for seed in range(2):
        fabricate_run(runs, {"seed": seed})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with caplog.at_level(logging.WARNING):
        assert cli.main(["sync", str(runs), "--uri", down]) == 1
    assert capsys.readouterr().err.count("not pushed") == 2
    assert len([record for record in caplog.records if record.name.startswith("megdet")]) == 1
    uri = new_database(tmp_path)
    for _ in range(2):
        assert cli.main(["sync", str(runs), "--uri", uri, "--experiment", "later"]) == 0
        assert "2 runs up to date" in capsys.readouterr().out
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("later")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 2


def test_sync_goes_where_each_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate_run(tmp_path / "runs", {"tracking.experiment": "mine"})
    fabricate_run(tmp_path / "runs", {"seed": 1, "tracking.uri": f"sqlite:///{tmp_path}/other.db"})
    new_database(tmp_path)
    (tmp_path / "other.db").write_bytes((tmp_path / "mlflow.db").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sync"]) == 0
    for database, experiment in (("mlflow.db", "mine"), ("other.db", "megdet")):
        client = MlflowClient(f"sqlite:///{tmp_path}/{database}")
        found = client.get_experiment_by_name(experiment)
        assert found is not None and len(client.search_runs([found.experiment_id])) == 1


def test_status_of_a_failed_run_with_markup_in_its_reason_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate_run(tmp_path, {}, state="failed", epochs=1)
    state = RunState.read(folder)
    assert state is not None
    RunState("failed", 1, state.started, reason="KeyError: [/red] rank 3").write(folder)
    assert cli.main(["status", str(tmp_path)]) == 0
    assert "[/red] rank 3" in capsys.readouterr().out


def test_status_and_help_load_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {}, epochs=1)
    program = (
        "import sys; from megdet import cli; cli.main(['status', sys.argv[1]]); "
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
