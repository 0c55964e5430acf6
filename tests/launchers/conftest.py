"""Plans that could go to a cluster, and Slurm's commands as programs that answer as they are told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder, folder_of

PlanFor = Callable[..., Plan]
Command = Callable[[str, str], None]


@pytest.fixture
def plan_for(tmp_path: Path) -> PlanFor:
    """The plan of a batch and BN size on 16 nodes x 8 GPUs; keywords are settings of the cluster."""

    def plan(batch: int, bn_size: int, *, seed: int = 0, **cluster: object) -> Plan:
        place = ClusterSettings(name="paper", nodes=16, gpus_per_node=8, **cluster)  # type: ignore[arg-type]
        return make_plan(
            Config(batch=batch, bn_size=bn_size, seed=seed, cluster=place, runs_dir=str(tmp_path / "runs"))
        )

    return plan


@pytest.fixture
def planned_run(plan_for: PlanFor) -> RunFolder:
    """A run folder with nothing but a plan."""
    return make_folder(plan_for(16, 16))


def make_folder(plan: Plan) -> RunFolder:
    """The folder of a plan's run, with the plan."""
    folder = folder_of(plan)
    folder.claim("test").write_plan(plan.to_json())
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Puts a program of Slurm's on the PATH: a shell script; without one there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/local/nowhere")

    def write(name: str, body: str) -> None:
        program = folder / name
        program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\ncd {tmp_path}\n{body}\n")
        program.chmod(0o755)

    return write
