"""What a sweep runs, skips and says, with a stand-in for the launcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.config.sweep import SweepSettings
from megdet.data.settings import DataSettings
from megdet.launchers.local.launcher import LocalLauncher
from megdet.model.settings import BackboneSettings, ModelSettings
from megdet.planning.code_version import code_version
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import folder_of
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.sweep_folder import Sweep
from megdet.sweep.points import STARTED_BY, plan_points
from megdet.sweep.sweep import run_points
from megdet.tracking.mirror import mirror
from tests.runs.folders import owned
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def ask(shapes_root: Path) -> Callable[..., Asked]:
    def asked(batch: int, bn_size: int, **more: object) -> Asked:
        config = Config(batch=batch, bn_size=bn_size, **more)  # type: ignore[arg-type]
        config.model = ModelSettings(
            name="tiny", backbone=BackboneSettings(name="tiny", weights="none", frozen_stages=0)
        )
        config.data = DataSettings(
            name="shapes",
            root=str(shapes_root),
            train_images=32,
            val_images=8,
            num_classes=6,
            min_size=64,
            max_size=107,
        )
        config.tracking.enabled = False
        return Asked((f"batch={batch}", f"bn_size={bn_size}"), config)

    return asked


Ask = Callable[..., Asked]


class Launcher:
    """Notes what it is asked to run and leaves the outcome that it is told."""

    def __init__(self, outcomes: dict[int, str] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.batches: list[int] = []

    def __call__(self, plan: Plan) -> Status:
        self.batches.append(plan.config.batch)
        outcome = Status(self.outcomes.get(plan.config.batch, "finished"))
        folder_of(plan).path.mkdir(parents=True, exist_ok=True)
        owned(folder_of(plan).path).write_state(RunState(outcome, attempts=1, started="2020-01-01T00:00:00+00:00"))
        return outcome


def test_a_sweep_runs_its_points_in_order_and_again_runs_nothing(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [ask(8, 8), ask(4, 4), ask(2, 2)]
    launcher = Launcher({4: "diverged"})
    assert run_points(asked, launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [8, 4, 2]
    assert "3 new" in capsys.readouterr().out
    assert run_points(asked, launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [8, 4, 2]
    assert "2 finished, 1 diverged" in capsys.readouterr().out


def test_the_lost_plan_of_a_run_that_has_ended_is_written_anew(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [ask(8, 8)]
    run_points(asked, launcher=LocalLauncher(run=Launcher()))
    [point] = plan_points(asked, to_run_here=True)
    assert point.plan is not None
    folder = folder_of(point.plan)
    for content in (None, "{"):
        folder.plan.unlink(missing_ok=True)
        if content:
            folder.plan.write_text(content)
        capsys.readouterr()
        assert run_points(asked, launcher=LocalLauncher(run=Launcher())) == 0
        assert f"{point.plan.run_id}: its plan.json was lost or damaged, and is written anew" in capsys.readouterr().err
        assert folder.read_plan()["run_id"] == point.plan.run_id and str(folder.state()).count("finished")
    assert run_points(asked, launcher=LocalLauncher(run=Launcher())) == 0
    assert "written anew" not in capsys.readouterr().err


def with_existing(asked: list[Asked], on_existing: str) -> list[Asked]:
    for one in asked:
        one.config.sweep.on_existing = on_existing
    return asked


def test_interrupted_runs_go_on_and_failed_ones_are_left_until_that_is_asked_for(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [ask(8, 8), ask(4, 4), ask(2, 2)]
    assert run_points(asked, launcher=LocalLauncher(run=Launcher({8: "failed", 2: "interrupted"}))) == 3
    again = Launcher()
    assert run_points(asked, launcher=LocalLauncher(run=again)) == 1, "a failed run is left"
    assert again.batches == [2]
    assert "1 failed run is left alone; sweep.on_existing=retry_failed" in capsys.readouterr().err
    last = Launcher()
    assert run_points(with_existing(asked, "retry_failed"), launcher=LocalLauncher(run=last)) == 0
    assert last.batches == [8]


def test_skip_starts_new_runs_alone(ask: Ask) -> None:
    run_points([ask(8, 8)], launcher=LocalLauncher(run=Launcher({8: "interrupted"})))
    launcher = Launcher()
    assert run_points(with_existing([ask(8, 8), ask(4, 4)], "skip"), launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [4]


def test_force_begins_anew_and_keeps_what_was(ask: Ask) -> None:
    asked = [ask(8, 8)]
    run_points(asked, launcher=LocalLauncher(run=Launcher()))
    run_id = plan_points(asked, to_run_here=True)[0].plan.run_id  # type: ignore[union-attr]
    (Path("runs") / run_id / "checkpoint.pt").touch()
    launcher = Launcher()
    assert run_points(with_existing(asked, "force"), launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [8]
    assert not (Path("runs") / run_id / "checkpoint.pt").exists()
    [old] = (Path("runs") / ".replaced").iterdir()
    assert (old / "checkpoint.pt").exists()


def test_an_unknown_way_with_existing_runs_is_refused(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_points(with_existing([ask(8, 8), ask(4, 4)], "retry")) == 2
    [once_for_all_points] = capsys.readouterr().err.splitlines()
    assert "skip, resume, retry_failed, force" in once_for_all_points
    for known in STARTED_BY:
        SweepSettings(on_existing=known).check("sweep.")


def test_a_failed_run_does_not_stop_the_others_and_an_interrupted_one_does(ask: Ask) -> None:
    failing = Launcher({8: "failed"})
    assert run_points([ask(8, 8), ask(4, 4)], launcher=LocalLauncher(run=failing)) == 1
    assert failing.batches == [8, 4]
    stopped = Launcher({2: "interrupted"})
    assert run_points([ask(2, 2), ask(1, 1)], launcher=LocalLauncher(run=stopped)) == 3
    assert stopped.batches == [2]


def test_a_run_whose_launcher_is_gone_counts_as_interrupted(ask: Ask) -> None:
    one = ask(8, 8)
    point = plan_points([one], to_run_here=True)[0]
    assert point.plan is not None and point.status == "new"
    folder_of(point.plan).path.mkdir(parents=True)
    owned(folder_of(point.plan).path).write_state(
        RunState(Status.RUNNING, attempts=1, started="2020-01-01T00:00:00+00:00")
    )
    assert plan_points([one], to_run_here=True)[0].status == "interrupted"


def test_points_that_cannot_be_are_reported_and_left_out(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    assert run_points([ask(8, 16), ask(8, 8)], launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [8]
    output = capsys.readouterr().out
    assert "1. invalid: batch=8 bn_size=16" in output and "What would work" in output
    assert "1 invalid, 1 new" in output


def test_on_invalid_error_runs_nothing(ask: Ask) -> None:
    launcher = Launcher()
    asked = [ask(8, 8), ask(8, 16)]
    for one in asked:
        one.config.sweep.on_invalid = "error"
    assert run_points(asked, launcher=LocalLauncher(run=launcher)) == 2
    assert launcher.batches == []


def test_a_single_invalid_experiment_is_an_error(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_points([ask(8, 16)], launcher=LocalLauncher(run=Launcher())) == 2
    captured = capsys.readouterr()
    assert "bn_size=16" in captured.err and captured.out == ""


def test_a_dry_run_starts_and_writes_nothing(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    asked = [ask(8, 8), ask(4, 4)]
    for one in asked:
        one.config.sweep.dry_run = True
        one.config.data.root = "missing"
    assert run_points(asked, launcher=LocalLauncher(run=launcher)) == 0
    assert launcher.batches == [] and list(tmp_path.iterdir()) == []
    assert "2 new" in capsys.readouterr().out


def test_the_same_experiment_on_another_layout_is_run_once(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    assert (
        run_points([ask(8, 8, gpus=1), ask(8, 8, gpus=2), ask(8, 8, seed=1)], launcher=LocalLauncher(run=launcher)) == 0
    )
    assert launcher.batches == [8, 8]
    assert "2. repeated" in capsys.readouterr().out


def test_missing_data_stops_a_sweep_before_its_first_run(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    asked = [ask(8, 8), ask(4, 4)]
    asked[1].config.data = DataSettings(root="nowhere")
    assert run_points(asked, launcher=LocalLauncher(run=launcher)) == 2
    assert launcher.batches == []
    assert "nowhere" in capsys.readouterr().err


def test_shapes_are_drawn_where_they_are_missing(ask: Ask, tmp_path: Path) -> None:
    one = ask(2, 2)
    one.config.data = DataSettings(
        name="shapes", root="drawn", train_images=2, val_images=1, num_classes=6, min_size=64, max_size=107
    )
    assert run_points([one], launcher=LocalLauncher(run=Launcher())) == 0
    assert len(list((tmp_path / "drawn" / "train2017").iterdir())) == 2


def test_a_plan_is_free_of_the_folder_it_was_made_in(ask: Ask, tmp_path: Path) -> None:
    one = ask(8, 8)
    one.config.data.root = "data"
    one.config.tracking.enabled = True
    plan = plan_points([one], to_run_here=True)[0].plan
    assert plan is not None
    assert plan.config.data.root == str(tmp_path / "data")
    assert plan.config.tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert one.config.data.root == "data"


def test_a_plan_names_the_commit_of_the_code(ask: Ask) -> None:
    commit, dirty = code_version()
    assert commit == "unknown" or len(commit) == 40
    plan = plan_points([ask(8, 8)], to_run_here=True)[0].plan
    assert plan is not None and (plan.commit, plan.dirty) == (commit, dirty)


def test_a_plan_for_a_cluster_can_be_shown_and_not_run_here(ask: Ask) -> None:
    one = ask(32, 2, gpus=32)
    one.config.cluster.nodes, one.config.cluster.gpus_per_node = 16, 2
    assert plan_points([one], to_run_here=True)[0].status == "new", "32 CPU processes are allowed"
    one.config.data.train_images = 1000
    one.config.batch, one.config.gpus, one.config.cluster.nodes = 128, 128, 64
    assert plan_points([one], to_run_here=False)[0].status == "new"
    point = plan_points([one], to_run_here=True)[0]
    assert point.shown == "invalid" and "cluster=local" in point.why


def test_a_run_is_in_the_folder_that_its_id_names(ask: Ask) -> None:
    launcher = Launcher()
    run_points([ask(8, 8)], launcher=LocalLauncher(run=launcher))
    plan = make_plan(plan_points([ask(8, 8)], to_run_here=True)[0].plan.config)  # type: ignore[union-attr]
    state = json.loads((Path("runs") / plan.run_id / "state.json").read_text())
    assert state["status"] == "finished"


ARGUMENTS = ("experiment=tiny", "batch=8,4,3", "gpus=1")


def test_a_sweep_is_on_record_before_its_first_run_and_concluded_after_its_last(ask: Ask) -> None:
    seen: list[tuple[str, int]] = []
    launcher = Launcher()

    def run(plan: Plan) -> Status:
        seen.append(("run", len(list(Path("runs/.sweeps").iterdir()))))
        return launcher(plan)

    def conclude(folder: Path) -> None:
        seen.append(("concluded", len(Sweep.read(folder).run_ids)))

    asked = [ask(8, 8), ask(4, 4), ask(3, 8), ask(4, 4, gpus=2)]
    assert run_points(asked, launcher=LocalLauncher(run=run), arguments=ARGUMENTS, conclude=conclude) == 0
    assert seen == [("run", 1), ("run", 1), ("concluded", 2)], "neither what is invalid nor what is repeated counts"
    [folder] = Path("runs/.sweeps").iterdir()
    sweep = Sweep.read(folder)
    assert (sweep.name, sweep.uri) == ("tiny batch=8,4,3", None)
    assert sweep.command == "python launch.py -m experiment=tiny batch=8,4,3 gpus=1"
    assert (sweep.settings["batch"], sweep.settings["model"]) == ("8, 4", "tiny")

    seen.clear()
    assert run_points(asked, launcher=LocalLauncher(run=run), arguments=ARGUMENTS, conclude=conclude) == 0
    assert seen == [("concluded", 2)] and list(Path("runs/.sweeps").iterdir()) == [folder]


def test_a_single_experiment_and_the_points_of_another_sweeper_are_no_sweep(ask: Ask) -> None:
    assert run_points([ask(8, 8)], launcher=LocalLauncher(run=Launcher()), arguments=("batch=8",)) == 0
    assert run_points([ask(4, 4), ask(2, 2)], launcher=LocalLauncher(run=Launcher())) == 0
    assert not Path("runs/.sweeps").exists()


def test_a_dry_run_of_a_sweep_records_nothing(ask: Ask) -> None:
    asked = [ask(8, 8), ask(4, 4)]
    asked[0].config.sweep.dry_run = True
    assert run_points(asked, launcher=LocalLauncher(run=Launcher()), arguments=ARGUMENTS) == 0
    assert not Path("runs").exists()


def test_runs_that_were_done_before_are_hung_below_a_new_sweep(ask: Ask, tmp_path: Path) -> None:
    uri = new_database(tmp_path / "store")
    asked = [ask(8, 8), ask(4, 4)]
    for one in asked:
        one.config.tracking.enabled, one.config.tracking.uri = True, uri

    def run(plan: Plan) -> Status:
        Launcher()(plan)
        (folder_of(plan).path / "plan.json").write_text(plan.to_json())
        assert mirror(folder_of(plan), uri, "megdet")
        return Status.FINISHED

    assert run_points(asked[:1], launcher=LocalLauncher(run=run)) == 0
    assert run_points(asked, launcher=LocalLauncher(run=run), arguments=ARGUMENTS) == 0
    found = MlflowClient(uri).search_runs(["1", "2"])
    parents = {run.data.tags.get("mlflow.parentRunId") for run in found if run.data.tags["kind"] == "run"}
    [parent] = [run for run in found if run.data.tags["kind"] == "sweep"]
    assert len(found) == 3 and parents == {parent.info.run_id}
    assert (parent.info.status, parent.data.tags["finished"]) == ("FINISHED", "2")


def test_a_sweep_with_nothing_left_to_start_shows_in_an_experiment_that_others_made(ask: Ask, tmp_path: Path) -> None:
    uri = new_database(tmp_path / "store")
    MlflowClient(uri).create_experiment("megdet", tags={"mlflow.note.content": "ours"})
    asked = [ask(8, 8), ask(4, 4)]
    launcher = Launcher()

    def run(plan: Plan) -> Status:
        state = launcher(plan)
        (folder_of(plan).path / "plan.json").write_text(plan.to_json())
        return state

    assert run_points(asked, launcher=LocalLauncher(run=run)) == 0
    for one in asked:
        one.config.tracking.enabled, one.config.tracking.uri = True, uri
    assert run_points(asked, launcher=LocalLauncher(run=run), arguments=ARGUMENTS) == 0
    assert launcher.batches == [8, 4], "the second time all was done"
    experiment = MlflowClient(uri).get_experiment_by_name("megdet")
    # Without the first tag MLflow's pages are those for chat bots, and the link that is printed shows no runs.
    assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "mlflow.sharedViewState.megdet" in experiment.tags and experiment.tags["mlflow.note.content"] == "ours"
