from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from megdet.analysis.frames import load_runs
from megdet.errors import UserError
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal
from megdet.runs.run_files import JOURNAL
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.tracking.client import browse_hint, prepare
from megdet.tracking.mirror import Mirror, mirror
from megdet.tracking.payload import MAX_STEP_POINTS
from megdet.tracking.uri import absolute_uri, sqlite_path
from megdet.training.drawing import detections_drawn, save_picture
from tests.runs.fabricate import fabricate_run, write_epoch
from tests.runs.folders import owned

from .databases import new_database
from .server import free_port, serving

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def runs_in(uri: str, experiment: str = "paper") -> list[Run]:
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def only_run(uri: str) -> Run:
    (run,) = runs_in(uri)
    return run


def curve(uri: str, run: Run, name: str) -> list[tuple[int, float]]:
    """(step, value) of every stored point, duplicates included."""
    points = MlflowClient(uri).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def test_a_finished_run_is_in_mlflow_with_params_tags_curves_result_and_files(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 64, "bn_size": 32, "lr.scale": 0.5, "seed": 7}, mmAP=37.1)
    picture = folder / "pictures" / "epoch11-0.png"
    picture.parent.mkdir()
    image = np.zeros((8, 8, 3), np.uint8)
    save_picture(detections_drawn(image, boxes=np.zeros((0, 4)), labels=[], scores=[], names=["cup"]), picture)
    assert mirror(RunFolder(folder), uri, "paper")
    run = only_run(uri)
    plan = json.loads((folder / "plan.json").read_text())
    assert (run.info.run_name, run.info.status) == (f"{plan['run_id']} r50_fpn coco2017", "FINISHED")
    assert run.info.end_time - run.info.start_time == 10 * 3600 * 1000
    expected = {
        "batch": "64", "bn_size": "32", "lr.scale": "0.5", "schedule": "normal", "model": "r50_fpn",
        "data": "coco2017", "seed": "7", "schedule.milestones": "[8, 10]", "precision": "fp32",
    }  # fmt: skip
    assert expected.items() <= run.data.params.items()
    assert "gpus" not in run.data.params and len(run.data.params) <= 55
    tags = {
        "run_id": plan["run_id"], "experiment_id": plan["experiment_id"], "gpus": "16", "images_per_gpu": "4",
        "accumulation": "1", "bn_group": "8", "bn_splits": "1", "commit": plan["commit"], "dirty": "False",
        "status": "finished", "outcome": "finished", "attempts": "1",
        "asked/batch": "0000064", "asked/bn_size": "0000032", "asked/lr": "0000.04000000",
    }  # fmt: skip
    assert tags.items() <= run.data.tags.items()
    assert run.data.tags["version.torch"] and run.data.tags["version.python"].startswith("3.")
    assert run.data.metrics["final/mmAP"] == pytest.approx(37.1)
    assert run.data.metrics["final/train_s"] == 36000
    assert not [name for name in run.data.metrics if name.startswith("asked/")], "they would fill the charts"
    assert curve(uri, run, "mmAP") == [(epoch, pytest.approx(37.1 * epoch / 11)) for epoch in range(1, 12)]
    files = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    assert files == {"plan.json", "metrics.jsonl", "pictures"}
    assert (tmp_path / "store" / "mlartifacts" / run.info.run_id / "artifacts" / "pictures" / picture.name).exists()


def test_settings_that_are_numbers_sort_as_such(tmp_path: Path, uri: str) -> None:
    asked = {16: 5.0, 256: 0.01, 64: 1.0}  # lr 0.1, 0.0032, 0.08
    for batch, scale in asked.items():
        assert mirror(RunFolder(fabricate_run(tmp_path / "runs", {"batch": batch, "lr.scale": scale})), uri, "paper")
    client = MlflowClient(uri)
    ids = [client.get_experiment_by_name("paper").experiment_id]
    for name, expected in (("asked/batch", ["16", "64", "256"]), ("asked/lr", ["256", "64", "16"])):
        found = client.search_runs(ids, order_by=[f"tags.`{name}` ASC"])
        assert [run.data.params["batch"] for run in found] == expected


def test_runs_are_told_apart_by_name_where_only_model_or_data_differ(tmp_path: Path, uri: str) -> None:
    for asked in ({}, {"data.name": "mine", "data.fingerprint": "0" * 12}, {"optimizer.momentum": 0.8}):
        assert mirror(RunFolder(fabricate_run(tmp_path / "runs", asked, epochs=1)), uri, "paper")
    names = {str(run.info.run_name) for run in runs_in(uri)}
    assert len(names) == 3 and [name.rpartition("-")[2].split(" ", 1)[1] for name in sorted(names)].count(
        "r50_fpn mine"
    )


def test_training_and_validation_images_are_linked_once_and_by_content(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"data.root": "/data/coco"}, status="running", epochs=0)
    assert mirror(RunFolder(folder), uri, "paper")
    assert only_run(uri).inputs.dataset_inputs == [], "the journal does not say yet what data it is"
    with Journal(owned(folder)) as journal:
        journal.event("resumed", step=0, attempt=1, data_sha256="72eb2f070aa4", commit="beef", dirty=False)
    assert mirror(RunFolder(folder), uri, "paper") and mirror(RunFolder(folder), uri, "paper")
    linked = [(one.tags[0].value, one.dataset) for one in only_run(uri).inputs.dataset_inputs]
    assert sorted((context, data.name, data.digest) for context, data in linked) == [
        ("training", "coco2017 train", "72eb2f070aa4"),
        ("validation", "coco2017 val", "72eb2f070aa4"),
    ]
    [train] = [data for context, data in linked if context == "training"]
    assert json.loads(train.profile) == {"images": 118287, "classes": 80}
    assert json.loads(train.source) == {"uri": "/data/coco"}
    again = fabricate_run(tmp_path / "runs", {"seed": 1, "data.root": "/data/coco"}, status="running", epochs=0)
    with Journal(owned(again)) as journal:
        journal.event("resumed", step=0, attempt=1, data_sha256="72eb2f070aa4", commit="beef", dirty=False)
    assert mirror(RunFolder(again), uri, "paper")
    # MLflow's own reader of a data set's source takes it.
    import mlflow

    source = mlflow.data.get_source(train)
    assert source.uri == "/data/coco"


def test_system_metrics_come_with_the_steps_they_were_read_at_and_once(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, status="running", epochs=0)
    with Journal(owned(folder)) as journal:
        for step in (1, 200, 400):
            journal.system(step, cpu_utilization_percentage=step / 2)
            if step == 400:  # caught between the two lines
                assert mirror(RunFolder(folder), uri, "paper")
            journal.step(step, epoch=step / 7392, loss=1.0)
    assert mirror(RunFolder(folder), uri, "paper") and mirror(RunFolder(folder), uri, "paper")
    assert curve(uri, only_run(uri), "system/cpu_utilization_percentage") == curve_of_journal(folder)


def curve_of_journal(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    return [(line["step"], line["cpu_utilization_percentage"]) for line in lines if line["kind"] == "system"]


@pytest.mark.parametrize("name", ["a b", "50%20off", "#1", "why?", "grün'"])
def test_any_folder_can_hold_the_database_and_the_files(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = tmp_path / name
    uri = new_database(place)
    folder = fabricate_run(place / "runs", {}, epochs=1)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "epoch1-0.png").write_bytes(b"picture")
    assert prepare(uri, "paper") and mirror(RunFolder(folder), uri, "paper")
    run = only_run(uri)
    others = [path for path in tmp_path.iterdir() if path.name != name]
    assert not [path for other in others for path in other.iterdir()], "MLflow leaves an empty folder at most"
    stored = place / "mlartifacts" / run.info.run_id / "artifacts" / "pictures" / "epoch1-0.png"
    assert stored.read_bytes() == b"picture"
    [picture] = MlflowClient(uri).list_artifacts(run.info.run_id, "pictures")
    assert Path(MlflowClient(uri).download_artifacts(run.info.run_id, picture.path)).read_bytes() == b"picture"
    assert sqlite_path(uri) == place / "mlflow.db" and absolute_uri(uri) == uri
    command = browse_hint(folder).splitlines()[0].partition("to browse: ")[2]
    assert shlex.split(command)[-1] == uri
    assert set(load_runs(uri).runs["run_id"]) == {folder.name}


def test_pushing_again_adds_nothing_and_a_new_epoch_is_added_once(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 256, "bn_size": 32}, status="running", epochs=2)
    assert mirror(RunFolder(folder), uri, "paper") and mirror(RunFolder(folder), uri, "paper")
    run = only_run(uri)
    assert run.info.status == "RUNNING"
    steps = curve(uri, run, "step/loss")
    assert [step for step, _ in curve(uri, run, "mmAP")] == [1, 2] and len(steps) == 20
    plan = Plan.from_json((folder / "plan.json").read_text())
    with Journal(owned(folder)) as journal:
        write_epoch(journal, plan, 3, mmAP=37.0, hours=10)
    assert mirror(RunFolder(folder), uri, "paper")
    assert [step for step, _ in curve(uri, only_run(uri), "mmAP")] == [1, 2, 3]
    assert curve(uri, only_run(uri), "step/loss")[:20] == steps
    assert len(curve(uri, only_run(uri), "step/loss")) == 30


@pytest.mark.parametrize("noted", ["mlflow.json kept", "mlflow.json lost"])
def test_a_resumed_run_goes_on_in_its_mlflow_run_without_a_point_twice(tmp_path: Path, uri: str, noted: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 256, "bn_size": 32}, status="interrupted", epochs=3)
    assert mirror(RunFolder(folder), uri, "paper")
    assert only_run(uri).info.status == "KILLED"
    first = only_run(uri)
    if noted == "mlflow.json lost":
        (folder / "mlflow.json").unlink()
    plan = Plan.from_json((folder / "plan.json").read_text())
    before = RunFolder(folder).state()
    assert before is not None
    with Journal(owned(folder)) as journal:
        journal.drop_after(2 * plan.schedule.steps_per_epoch)
        write_epoch(journal, plan, 3, mmAP=37.0, hours=10)
        write_epoch(journal, plan, 4, mmAP=37.0, hours=10)
    owned(folder).write_state(RunState(Status.RUNNING, attempts=2, started=before.started))
    assert mirror(RunFolder(folder), uri, "paper")
    run = only_run(uri)
    assert run.info.run_id == first.info.run_id
    assert run.info.status == "RUNNING" and run.data.tags["attempts"] == "2"
    assert [step for step, _ in curve(uri, run, "mmAP")] == [1, 2, 3, 4]
    steps = [step for step, _ in curve(uri, run, "step/loss")]
    assert len(steps) == len(set(steps)) == 40


def begun_anew(folder: Path, *, mmAP: float) -> tuple[Path, Path]:
    """What `sweep.on_existing=force` leaves of a fabricated run: the old folder, and the new run in its place."""
    old = folder.parent / ".replaced" / f"{folder.name}-20261121-100000-1"
    old.parent.mkdir()
    folder.rename(old)
    new = fabricate_run(folder.parent, {"batch": 16}, mmAP=mmAP, commit="beef" * 10)
    state = RunFolder(new).state()
    assert state is not None
    again = replace(state, started="2026-11-21T10:00:00+00:00", ended="2026-11-21T12:00:00+00:00")
    owned(new).write_state(again)
    return old, new


@pytest.mark.parametrize("was", ["finished", "running"])
def test_a_run_begun_anew_is_a_new_run_in_mlflow_and_the_old_one_is_marked(tmp_path: Path, uri: str, was: Any) -> None:
    folder = fabricate_run(
        tmp_path / "runs", {"batch": 16}, mmAP=37.0, status=was, epochs=11 if was == "finished" else 3
    )
    assert mirror(RunFolder(folder), uri, "paper")
    first = only_run(uri)
    old, new = begun_anew(folder, mmAP=30.0)
    assert mirror(RunFolder(new), uri, "paper") and mirror(RunFolder(new), uri, "paper")
    if was == "finished":
        assert mirror(RunFolder(old), uri, "paper"), "to push the old folder again changes nothing"
    second, before = runs_in(uri)  # the one begun last first
    assert (before.info.run_id, before.data.tags["status"]) == (first.info.run_id, "replaced")
    assert before.data.tags["outcome"] == "" and before.info.status == ("FINISHED" if was == "finished" else "KILLED")
    assert before.data.tags["commit"] == first.data.tags["commit"] and before.data.metrics == first.data.metrics
    assert second.data.tags["commit"] == "beef" * 10 and second.data.tags["status"] == "finished"
    assert curve(uri, second, "mmAP") == [(epoch, pytest.approx(30.0 * epoch / 11)) for epoch in range(1, 12)]
    assert second.data.metrics["final/mmAP"] == pytest.approx(30.0) and second.data.params["batch"] == "16"


def test_a_run_begun_anew_where_mlflow_json_has_stayed_is_a_new_run_too(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 16}, mmAP=37.0)
    assert mirror(RunFolder(folder), uri, "paper")
    old, new = begun_anew(folder, mmAP=30.0)
    shutil.copy(old / "mlflow.json", new)
    assert mirror(RunFolder(new), uri, "paper")
    assert [run.data.tags["status"] for run in runs_in(uri)] == ["finished", "replaced"]


def test_the_old_folder_pushed_after_the_new_one_is_a_replaced_run(tmp_path: Path, uri: str) -> None:
    old, new = begun_anew(fabricate_run(tmp_path / "runs", {"batch": 16}, mmAP=37.0), mmAP=30.0)
    assert (
        mirror(RunFolder(new), uri, "paper")
        and mirror(RunFolder(old), uri, "paper")
        and mirror(RunFolder(new), uri, "paper")
    )
    second, first = runs_in(uri)
    assert (second.data.tags["status"], first.data.tags["status"]) == ("finished", "replaced")
    assert second.data.metrics["final/mmAP"] == pytest.approx(30.0)
    assert first.data.metrics["final/mmAP"] == pytest.approx(37.0)


def test_a_push_that_broke_off_before_it_was_noted_is_repeated_without_a_point_twice(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, status="running", epochs=2)
    assert mirror(RunFolder(folder), uri, "paper")
    noted = json.loads((folder / "mlflow.json").read_text())
    (folder / "mlflow.json").write_text(json.dumps(noted | {"epoch": 0, "step": 0}))
    assert mirror(RunFolder(folder), uri, "paper")
    assert [step for step, _ in curve(uri, only_run(uri), "mmAP")] == [1, 2]
    assert len(curve(uri, only_run(uri), "step/loss")) == 20


@pytest.mark.parametrize("state, status, outcome", [("diverged", "FINISHED", "diverged"), ("failed", "FAILED", None)])
def test_divergence_is_a_result_and_an_error_a_failure(
    tmp_path: Path, uri: str, state: Any, status: str, outcome: str | None
) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 64, "bn_size": 0}, status=state, epochs=1, reason="loss is NaN")
    (folder / "failure.json").write_text("{}")
    assert mirror(RunFolder(folder), uri, "paper")
    run = only_run(uri)
    assert run.info.status == status and run.data.tags.get("outcome") == outcome
    assert run.data.tags["reason"] == "loss is NaN"
    assert not [name for name in run.data.metrics if name.startswith("final/")]
    assert "failure.json" in {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}


def test_values_that_json_cannot_hold_leave_a_gap_in_the_curve(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, status="running", epochs=1)
    with Journal(owned(folder)) as journal:
        journal.epoch(2, step=99999, train_s=1.0, loss=float("nan"), mmAP=2.0)
    assert mirror(RunFolder(folder), uri, "paper")
    assert [step for step, _ in curve(uri, only_run(uri), "loss")] == [1]
    assert [step for step, _ in curve(uri, only_run(uri), "mmAP")] == [1, 2]


def test_per_step_curves_are_thinned_to_some_hundred_points_however_they_arrive(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 16}, status="running", epochs=0)
    with Journal(owned(folder)) as journal:
        for step in range(1, 40001, 20):
            journal.step(step, epoch=step / 7392, loss=1.0)
            if step in (4001, 4021):
                assert mirror(RunFolder(folder), uri, "paper")
    assert mirror(RunFolder(folder), uri, "paper")
    steps = [step for step, _ in curve(uri, only_run(uri), "step/loss")]
    total = Plan.from_json((folder / "plan.json").read_text()).schedule.steps
    assert total > 80000 and len(steps) <= MAX_STEP_POINTS
    assert len(steps) > 0.4 * MAX_STEP_POINTS and len(steps) == len(set(steps))


def test_two_mlflow_runs_of_one_run_are_an_error_that_names_both(
    tmp_path: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    assert mirror(RunFolder(folder), uri, "paper")
    client, run = MlflowClient(uri), only_run(uri)
    twin = client.create_run(run.info.experiment_id, run.info.start_time, tags={"run_id": run.data.tags["run_id"]})
    (folder / "mlflow.json").unlink()
    assert not mirror(RunFolder(folder), uri, "paper")
    assert run.info.run_id in caplog.text and twin.info.run_id in caplog.text
    client.delete_run(twin.info.run_id)
    assert mirror(RunFolder(folder), uri, "paper")
    assert only_run(uri).info.run_id == run.info.run_id


def test_a_run_deleted_in_mlflow_is_pushed_anew(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    assert mirror(RunFolder(folder), uri, "paper")
    MlflowClient(uri).delete_run(only_run(uri).info.run_id)
    assert mirror(RunFolder(folder), uri, "paper")
    assert len(curve(uri, only_run(uri), "mmAP")) == 11


def test_a_run_that_has_not_started_is_left_alone(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    (folder / "state.json").unlink()
    assert mirror(RunFolder(folder), uri, "paper")
    assert runs_in(uri) == []


def test_many_writers_make_one_experiment_and_one_run_each(tmp_path: Path, uri: str) -> None:
    folders = [fabricate_run(tmp_path / "runs", {"seed": seed}, epochs=1) for seed in range(3)]
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda f=folder: results.append(mirror(RunFolder(f), uri, "paper")))
        for folder in folders * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 6
    assert sorted(run.data.params["seed"] for run in runs_in(uri)) == ["0", "1", "2"]


def test_pushing_from_a_training_run_returns_at_once_and_closing_brings_everything(tmp_path: Path, uri: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, status="running", epochs=1)
    background = Mirror(RunFolder(folder), uri, "paper")
    start = time.perf_counter()
    for _ in range(100):
        background.push()
    assert time.perf_counter() - start < 0.1
    with Journal(owned(folder)) as journal:
        write_epoch(journal, Plan.from_json((folder / "plan.json").read_text()), 2, mmAP=37.0, hours=10)
    assert background.close(timeout_s=60)
    assert [step for step, _ in curve(uri, only_run(uri), "mmAP")] == [1, 2]


def test_a_uri_that_cannot_be_right_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for wrong in ("sqlte:///mlflow.db", str(tmp_path), "mlruns"):
        with pytest.raises(UserError, match="sqlite"):
            prepare(wrong, "paper")


def test_a_relative_database_is_the_one_of_the_folder_at_hand(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fabricate_run(tmp_path / "runs", {}, epochs=1)
    monkeypatch.chdir(tmp_path / "store")
    assert mirror(RunFolder(folder), "sqlite:///mlflow.db", "paper")
    monkeypatch.chdir(tmp_path)
    assert len(runs_in(uri)) == 1 and not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_first_start_prints_nothing(tmp_path: Path) -> None:
    program = f"from megdet.tracking.client import prepare; print(prepare('sqlite:///{tmp_path}/mlflow.db', 'paper'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


def test_a_server_that_is_down_costs_one_warning_and_seconds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fabricate_run(tmp_path / "runs", {})
    uri = f"http://127.0.0.1:{free_port()}"
    with caplog.at_level(logging.WARNING):
        start = time.perf_counter()
        assert not prepare(uri, "paper")
        background = Mirror(RunFolder(folder), uri, "paper")
        background.push()
        assert not background.close(timeout_s=60)
        assert not mirror(RunFolder(folder), uri, "paper")
    assert time.perf_counter() - start < 30
    said = [record.getMessage() for record in caplog.records if record.name.startswith("megdet")]
    assert len(said) == 1 and uri in said[0] and "megdet sync" in said[0]
    assert (folder / JOURNAL).exists() and not (folder / "mlflow.json").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    store = tmp_path / "server"
    with serving(new_database(store), store) as url:
        yield url


@pytest.mark.slow
def test_a_real_server_takes_the_same_run(tmp_path: Path, server: str) -> None:
    folder = fabricate_run(tmp_path / "runs", {"batch": 32, "bn_size": 32})
    assert (
        prepare(server, "paper")
        and mirror(RunFolder(folder), server, "paper")
        and mirror(RunFolder(folder), server, "paper")
    )
    run = only_run(server)
    assert run.data.params["batch"] == "32" and run.info.status == "FINISHED"
    assert len(curve(server, run, "mmAP")) == 11 and len(curve(server, run, "step/loss")) == 110
    artifacts = MlflowClient(server).list_artifacts(run.info.run_id)
    assert {file.path for file in artifacts} == {"plan.json", "metrics.jsonl"}
