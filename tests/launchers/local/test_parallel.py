"""Several runs at a time on this machine, never more than there are GPUs or cores for; and Hydra's own sweeper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.errors import UserError
from megdet.launchers.local.launcher import next_steps
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.parallel import ParallelLauncher
from megdet.planning.fork import Fork
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.objective import final_mmap
from megdet.sweep.points import Point
from tests.launchers.conftest import PlanFor
from tests.test_launch import LAUNCH, SMALL, launch

STAND_IN = """
import json, os, sys, time
from pathlib import Path
plan = json.load(sys.stdin)
folder = Path(plan["config"]["runs_dir"]) / plan["run_id"]
began = time.monotonic()
time.sleep(0.5)
(folder / "spoke.json").write_text(json.dumps({
    "began": began, "ended": time.monotonic(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}))
sys.exit(int((folder / "exit").read_text()) if (folder / "exit").exists() else 0)
"""
"""Instead of a run's own launcher: notes when it ran and what it could see."""


def on_gpus(plan: Plan, gpus: int) -> Plan:
    return replace(plan, layout=replace(plan.layout, gpus=gpus))


def spoke(plan: Plan) -> dict[str, object]:
    said: dict[str, object] = json.loads((folder_of(plan).path / "spoke.json").read_text())
    return said


def run(plans: Sequence[Plan], *gpus: str, cores: int = 2) -> tuple[int, list[Plan]]:
    """The launcher's exit code, and the plans that it wants to be mirrored."""
    mirrored: list[Plan] = []
    launcher = ParallelLauncher(Machine(gpus, cores), one_run=(sys.executable, "-c", STAND_IN))
    return launcher.run(plans, [], mirror=mirrored.append), mirrored


def test_runs_share_the_gpus_and_no_gpu_is_shared(plan_for: PlanFor) -> None:
    plans = [on_gpus(plan_for(16, 16, seed=seed), gpus) for seed, gpus in enumerate((2, 1, 3))]
    assert run(plans, "4", "5", "7") == (0, [])
    first, second, third = map(spoke, plans)
    assert (first["gpus"], second["gpus"]) == ("4,5", "7")
    assert sorted(str(third["gpus"]).split(",")) == ["4", "5", "7"]
    assert second["began"] < first["ended"] and third["began"] > max(first["ended"], second["ended"])  # type: ignore[operator,type-var]


def test_a_run_of_more_cpu_ranks_than_cores_has_them_to_itself(plan_for: PlanFor) -> None:
    plans = [on_gpus(plan_for(16, 16, seed=seed), gpus) for seed, gpus in enumerate((1, 8))]
    assert run(plans, cores=2)[0] == 0
    assert spoke(plans[1])["began"] > spoke(plans[0])["ended"]  # type: ignore[operator]


@pytest.mark.parametrize("code", [1, 0])
def test_a_failed_run_does_not_stop_the_others(code: int, plan_for: PlanFor) -> None:
    plans = [on_gpus(plan_for(16, 16, seed=seed), 1) for seed in (0, 1)]
    folder_of(plans[0]).path.mkdir(parents=True)
    (folder_of(plans[0]).path / "exit").write_text(str(code))
    assert run(plans, "0") == (code, [plans[0]] if code else [])
    assert spoke(plans[1])


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (Status.FINISHED, None, "finished; next: megdet tables, megdet predict {run_id} FOLDER"),
        (
            Status.DIVERGED,
            "diverged at step 56: the loss is nan",
            "diverged at step 56: the loss is nan; that is a result",
        ),
    ],
)
def test_a_run_that_came_to_a_result_is_told_with_its_own(
    status: Status,
    reason: str | None,
    said: str,
    plan_for: PlanFor,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = on_gpus(plan_for(16, 16), 1)
    monkeypatch.chdir(folder_of(plan).path.parents[1])
    folder_of(plan).path.mkdir(parents=True)
    owned = folder_of(plan).claim("its ranks")
    owned.write_state(RunState(status, 1, "2026-11-27T10:00:00+00:00", reason=reason))
    assert run([plan], "0") == (0, [])
    assert f"[1/1] {plan.run_id}: {said.format(run_id=plan.run_id)}" in capsys.readouterr().out


def test_a_run_in_another_folder_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "my runs" / "b16")
    monkeypatch.chdir(tmp_path)
    assert next_steps(folder) == "next: megdet tables --from 'my runs', megdet predict 'my runs/b16' FOLDER"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert f"megdet predict '{folder.path}' FOLDER" in next_steps(folder)


def test_a_run_that_goes_on_from_another_waits_for_its_checkpoint_and_lets_others_pass(plan_for: PlanFor) -> None:
    source, other, *forked = (on_gpus(plan_for(16, 16, seed=seed), 1) for seed in range(4))
    waiting, at_hand = (replace(plan, fork=Fork(source.run_id, 8)) for plan in forked)
    at_hand = replace(at_hand, fork=Fork("b16-bn16-normal-s9-0123abcd", 8))  # of no run here: it does not wait
    assert run([source, waiting, at_hand, other], "0", "1", "2") == (0, [])
    assert spoke(waiting)["began"] > spoke(source)["ended"]  # type: ignore[operator]
    assert max(spoke(plan)["began"] for plan in (at_hand, other)) < spoke(source)["ended"]  # type: ignore[operator,type-var]


def test_a_run_starts_as_soon_as_the_one_that_it_goes_on_from_has_come_so_far(plan_for: PlanFor) -> None:
    source, forked = (on_gpus(plan_for(16, 16, seed=seed), 1) for seed in (0, 1))
    forked = replace(forked, fork=Fork(source.run_id, 8))
    folder_of(source).path.mkdir(parents=True)
    folder_of(source).kept_checkpoint(8).touch()
    assert run([source, forked], "0", "1") == (0, [])
    assert spoke(forked)["began"] < spoke(source)["ended"]  # type: ignore[operator]


@pytest.mark.slow
def test_a_sweep_runs_side_by_side_from_the_command_line(tmp_path: Path) -> None:
    done = launch(tmp_path, "-m", *SMALL, "seed=0,1", "hydra/launcher=local_parallel")
    assert done.returncode == 0, done.stdout + done.stderr
    states = [RunFolder(folder).state() for folder in (tmp_path / "runs").iterdir()]
    assert [state.status for state in states if state] == ["finished", "finished"]
    again = launch(tmp_path, "-m", *SMALL, "seed=0,1", "hydra/launcher=local_parallel")
    assert again.returncode == 0 and "2 finished" in again.stdout


@pytest.mark.slow
def test_ctrl_c_interrupts_all_runs_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [*SMALL, "schedule.epochs=300", "seed=0,1", "hydra/launcher=local_parallel"]
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


@pytest.mark.parametrize("words", [[], ["-m"], ["-m", "hydra/sweeper=basic"]], ids=" ".join)
def test_submitit_s_own_local_launcher_is_refused_with_what_to_use(words: list[str], tmp_path: Path) -> None:
    done = launch(tmp_path, *words, *SMALL, "hydra/launcher=submitit_local")
    assert done.returncode == 2 and not (tmp_path / "runs").exists()
    assert "hydra/launcher=local_parallel" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_another_sweeper_may_choose_the_points(tmp_path: Path) -> None:
    """Hydra's own stands for those of other packages: it hands over points, and is told how each came out."""
    words = ["-m", *SMALL, "hydra/sweeper=basic", "hydra/launcher=local_parallel"]
    done = launch(tmp_path, *words, "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 new" in done.stdout and len(list(tmp_path.glob("runs/b*/state.json"))) == 2
    done = launch(tmp_path, *words, "bn_size=4,8")
    assert done.returncode != 0 and "a BN batch cannot exceed the batch" in done.stderr


def test_the_objective_is_the_last_mmap_and_a_failure_has_none(planned_run: RunFolder, plan_for: PlanFor) -> None:
    plan = plan_for(16, 16)
    with Journal(planned_run.owned_by("test")) as journal:
        for epoch, mmap in enumerate((10.0, 31.5), start=1):
            journal.epoch(epoch, step=epoch, mmAP=mmap)
    point = Point(Asked(("batch=16",), plan.config), plan, Status.FINISHED)
    assert final_mmap(point) == 31.5
    assert final_mmap(replace(point, status=Status.DIVERGED)) == 0.0
    with pytest.raises(UserError, match=r"batch=16: failed \(no luck\)"):
        final_mmap(replace(point, status=Status.FAILED, why="no luck"))
