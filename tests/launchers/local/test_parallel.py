"""Several runs at a time on this machine, never more than there are GPUs or cores for; and Hydra's own sweeper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from megdet.launchers.side_by_side import SideBySide

from megdet.config.compose import Asked
from megdet.errors import UserError
from megdet.launchers import side_by_side
from megdet.launchers.local import devices_here, folder_of
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal
from megdet.runs.status import Status
from megdet.sweep.objective import final_mmap
from megdet.sweep.points import Point
from tests.launchers.conftest import PlanFor
from tests.runs.folders import owned
from tests.test_launch import LAUNCH, SMALL, launch

STAND_IN = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1]).parent
began = time.monotonic()
time.sleep(0.5)
(folder / "spoke.json").write_text(json.dumps({
    "began": began, "ended": time.monotonic(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}))
sys.exit(int((folder / "exit").read_text()) if (folder / "exit").exists() else 0)
"""


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def visible(names: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
        devices_here.cache_clear()

    yield visible
    devices_here.cache_clear()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a run's own launcher, a program that notes when it ran and what it could see."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(side_by_side, "one_run", lambda plan_file: [sys.executable, str(program), str(plan_file)])


def on_gpus(plan: Plan, gpus: int) -> Plan:
    return replace(plan, layout=replace(plan.layout, gpus=gpus))


def spoke(plan: Plan) -> dict[str, object]:
    said: dict[str, object] = json.loads((folder_of(plan).path / "spoke.json").read_text())
    return said


def run(plans: list[Plan]) -> tuple[int, list[Plan]]:
    mirrored: list[Plan] = []
    return SideBySide().run(plans, [], mirror=mirrored.append), mirrored


def test_runs_share_the_gpus_and_no_gpu_is_shared(
    plan_for: PlanFor, devices: Callable[[str], None], stand_in: None
) -> None:
    devices("4,5,7")
    plans = [on_gpus(plan_for(16, 16, seed=seed), gpus) for seed, gpus in enumerate((2, 1, 3))]
    assert run(plans) == (0, [])
    first, second, third = map(spoke, plans)
    assert (first["gpus"], second["gpus"]) == ("4,5", "7")
    assert sorted(str(third["gpus"]).split(",")) == ["4", "5", "7"]
    assert second["began"] < first["ended"] and third["began"] > max(first["ended"], second["ended"])  # type: ignore[operator,type-var]


def test_a_run_of_more_cpu_ranks_than_cores_has_them_to_itself(
    plan_for: PlanFor, devices: Callable[[str], None], stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices("")
    monkeypatch.setattr(side_by_side, "cores_here", lambda: 2)
    plans = [on_gpus(plan_for(16, 16, seed=seed), gpus) for seed, gpus in enumerate((1, 8))]
    assert run(plans)[0] == 0
    assert spoke(plans[1])["began"] > spoke(plans[0])["ended"]  # type: ignore[operator]


@pytest.mark.parametrize(("code", "state"), [(1, "failed"), (0, "finished")])
def test_a_failed_run_does_not_stop_the_others(
    code: int, state: Status, plan_for: PlanFor, devices: Callable[[str], None], stand_in: None
) -> None:
    devices("0")
    plans = [on_gpus(plan_for(16, 16, seed=seed), 1) for seed in (0, 1)]
    folder_of(plans[0]).path.mkdir(parents=True)
    (folder_of(plans[0]).path / "exit").write_text(str(code))
    assert run(plans) == (code, [plans[0]] if code else [])
    assert spoke(plans[1])


def test_a_sweep_runs_side_by_side_from_the_command_line(tmp_path: Path) -> None:
    done = launch(tmp_path, "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.stdout + done.stderr
    states = [RunFolder(folder).state() for folder in (tmp_path / "runs").iterdir()]
    assert [state.status for state in states if state] == ["finished", "finished"]
    again = launch(tmp_path, "-m", *SMALL, "seed=0,1", "hydra/launcher=submitit_local")
    assert again.returncode == 0 and "2 finished" in again.stdout


@pytest.mark.slow
def test_ctrl_c_interrupts_all_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [*SMALL, "schedule.epochs=300", "seed=0,1", "hydra/launcher=submitit_local"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen([sys.executable, str(LAUNCH), "-m", *words], cwd=tmp_path, env=environment)
    for _ in range(600):
        if len(list(tmp_path.glob("runs/b*/metrics.jsonl"))) == min(2, len(os.sched_getaffinity(0))):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 3
    states = [RunFolder(path.parent).state() for path in tmp_path.glob("runs/b*/metrics.jsonl")]
    assert states and all(state and state.status == "interrupted" for state in states)


def test_another_sweeper_may_choose_the_points(tmp_path: Path) -> None:
    """Hydra's own stands for Optuna and its like: it hands over points, and is told how each came out."""
    words = ["-m", *SMALL, "hydra/sweeper=basic", "hydra/launcher=submitit_local"]
    done = launch(tmp_path, *words, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 new" in done.stdout and len(list(tmp_path.glob("runs/b*/state.json"))) == 2
    done = launch(tmp_path, *words, "bn_size=4,8")
    assert done.returncode != 0 and "a BN batch cannot exceed the batch" in done.stderr


def test_the_objective_is_the_last_mmap_and_a_failure_has_none(planned_run: Path, plan_for: PlanFor) -> None:
    plan = plan_for(16, 16)
    with Journal(owned(planned_run)) as journal:
        for epoch, mmap in enumerate((10.0, 31.5), start=1):
            journal.epoch(epoch, step=epoch, mmAP=mmap)
    point = Point(Asked(("batch=16",), plan.config), plan, Status.FINISHED)
    assert final_mmap(point) == 31.5
    assert final_mmap(replace(point, status=Status.DIVERGED)) == 0.0
    with pytest.raises(UserError, match=r"batch=16: failed \(no luck\)"):
        final_mmap(replace(point, status=Status.FAILED, why="no luck"))
