"""Beside Hydra's own plugins for submitit and Optuna, whose users are ours: no warnings, and the same plans."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.test_launch import SMALL, launch

PLUGINS = ("hydra-submitit-launcher==1.2.0", "hydra-optuna-sweeper==1.3.0", "optuna==2.10.1")
"""The releases for Hydra 1.3, and the Optuna that the last one asks for."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugins, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("plugins")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        [*pip, "--no-deps", "--target", str(folder), *PLUGINS], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"the plugins could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder


def beside(plugins: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return launch(folder, *words, PYTHONPATH=os.pathsep.join((str(plugins), os.environ.get("PYTHONPATH", ""))))


def headline() -> list[str]:
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if "launcher=submitit_slurm " in line]
    words = shlex.split(line, comments=True)
    assert words[:3] == ["python", "launch.py", "-m"]
    return words[2:]


def test_hydra_finds_the_plugins(plugins: Path, tmp_path: Path) -> None:
    """So that the tests below are about something."""
    done = beside(plugins, tmp_path, "--info", "plugins")
    assert "hydra_plugins.hydra_submitit_launcher" in done.stdout, done.stdout + done.stderr
    assert "hydra_plugins.hydra_optuna_sweeper" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        headline(),
        ["batch=16"],
        ["-m", "batch=16,32", "hydra/launcher=local_parallel"],
        ["-m", "batch=16,32", "hydra/sweeper=basic", "hydra/launcher=submitit_slurm", "cluster=paper"],
    ],
    ids=" ".join,
)
def test_the_plan_is_the_same_and_nothing_warns(words: list[str], plugins: Path, tmp_path: Path) -> None:
    alone = launch(tmp_path, *words, "sweep.dry_run=true")
    both = beside(plugins, tmp_path, *words, "sweep.dry_run=true")
    assert both.returncode == 0 and both.stdout == alone.stdout, both.stdout + both.stderr
    assert "arning" not in both.stderr and "deprecated" not in both.stderr
    assert both.stderr == alone.stderr


def test_a_run_beside_the_plugins_trains(plugins: Path, tmp_path: Path) -> None:
    done = beside(plugins, tmp_path, "-m", *SMALL, "seed=0,1", "hydra/launcher=local_parallel")
    assert done.returncode == 0 and "arning" not in done.stderr, done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/b*/state.json"))) == 2


def test_an_optuna_that_is_too_old_is_one_message(plugins: Path, tmp_path: Path) -> None:
    words = ("-m", *SMALL, "hydra/sweeper=optuna", "lr.base=interval(0.005,0.05)", "sweep.dry_run=true")
    done = beside(plugins, tmp_path, *words)
    assert done.returncode == 2 and "2.10.1 is installed" in done.stderr, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
