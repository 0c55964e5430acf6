"""A folder that was moved or copied: its runs train, and are looked into, with the data in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.data.settings import DataSettings
from megdet.planning.plan import Plan
from megdet.runs.data_places import located, portable, root_here
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import read_journal
from megdet.sweep.points import plan_points
from tests.data.own_set import write_own_set
from tests.runs.folders import owned
from tests.tiny import tiny_model


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs are launched."""
    old = tmp_path / "old"
    old.mkdir()
    monkeypatch.chdir(old)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return old


def planned(data: DataSettings) -> Plan:
    config = Config(batch=4, bn_size=4, gpus=1, data=data, model=tiny_model())
    config.schedule.epochs, config.schedule.milestones, config.schedule.factors = 1, [], []
    config.cluster.gpus_per_node, config.tracking.enabled, config.data.workers = 1, False, 0
    [point] = plan_points([Asked((), config)], to_run_here=True)
    assert point.plan, point.why
    return point.plan


@pytest.mark.slow
def test_a_copied_folder_trains_with_the_data_in_it(old: Path, tmp_path: Path) -> None:
    plan = planned(write_own_set(old / "data" / "set"))
    run = owned(folder_of(plan).path)
    run.write_plan(portable(plan, run).to_json())
    new = tmp_path / "new"
    shutil.copytree(old, new)
    shutil.rmtree(old / "data")
    path = new / "runs" / plan.run_id
    done = subprocess.run(
        [sys.executable, "-m", "megdet.run", str(path / "plan.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["epoch"] for line in read_journal(RunFolder(path), kinds=("epoch",))] == [1]
    assert path.name == plan.run_id and not (old / "data").exists()


def test_places_below_the_launch_are_relative_in_plan_json_and_come_back(old: Path, tmp_path: Path) -> None:
    plan = planned(write_own_set(old / "data" / "set"))
    run = owned(folder_of(plan).path)
    kept = portable(plan, run)
    assert kept.config.data.root == "../../data/set" and str(tmp_path) not in json.dumps(
        json.loads(kept.to_json())["config"]["data"]
    )
    read = Plan.from_json(kept.to_json())
    assert read.run_id == plan.run_id
    back = located(read.config, RunFolder(run.path)).data
    assert back.root == plan.config.data.root
    for split in ("train", "val"):
        was, now = getattr(plan.config.data, split), getattr(back, split)
        assert os.path.normpath(Path(back.root) / now.annotations) == was.annotations


@pytest.mark.parametrize("runs", ["runs", "runs/desk", "mine/runs/desk"])
@pytest.mark.parametrize("root", ["", "desk", "sets/desk"])
def test_data_is_found_whatever_folders_are_called(old: Path, tmp_path: Path, runs: str, root: str) -> None:
    data = write_own_set(old / root)
    (old / runs / "desk").mkdir(parents=True, exist_ok=True)
    plan = planned(data)
    run = owned(old / runs / plan.run_id)
    run.write_plan(portable(plan, run).to_json())
    new = tmp_path / "new"
    shutil.copytree(old, new)
    for place in (old, new):
        folder = RunFolder(place / runs / plan.run_id)
        back = located(Plan.from_json(folder.plan.read_text()).config, folder).data
        assert Path(back.root) == place / root


def test_data_elsewhere_stays_where_it_is(old: Path, tmp_path: Path) -> None:
    plan = planned(write_own_set(tmp_path / "shared"))
    assert portable(plan, folder_of(plan)) == plan
    assert root_here("/data/coco", folder_of(plan).path) == "/data/coco"


def test_a_run_that_was_put_aside_a_folder_deeper_finds_its_data_too(old: Path) -> None:
    (old / "data").mkdir()
    for run in ("runs/a", "runs/.replaced/a", "runs/mine/2026/a"):
        assert root_here("data", old / run) == root_here("../../data", old / run) == str(old / "data")
    assert root_here("gone", old / "runs" / "a") == str(old / "gone"), "for the message"
