"""megdet as a stranger installs it: a wheel in an environment of its own, far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from megdet import __version__

ROOT = Path(__file__).parents[1]
SMALL = [
    "experiment=tiny", "gpus=1", "batch=4", "bn_size=4", "data.train_images=32", "data.val_images=4",
    "data.min_size=64", "data.max_size=107", "data.workers=0", "schedule.epochs=1", "schedule.milestones=[]",
    "schedule.factors=[]",
]  # fmt: skip

Megdet = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel; what megdet needs, it takes from this one. Offline."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(ROOT)], check=True)
    environment = folder / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    # Programs of an environment have the packages of another in reach; its .pth files, and so a checkout that is
    # installed there, are not read.
    place = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (place / "needed.pth").write_text("\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")}))
    [wheel] = folder.glob("megdet-*.whl")
    subprocess.run([*pip, "--python", str(python), "install", *offline, str(wheel)], check=True)
    return python.parent


@pytest.fixture
def megdet(programs: Path, tmp_path: Path) -> Megdet:
    """Runs `megdet ARGUMENTS` of the wheel in a folder that has nothing to do with a checkout."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / "megdet"), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**inherited, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", **more},
        )  # fmt: skip

    return run


def test_an_installed_megdet_trains_and_tabulates_anywhere(megdet: Megdet, tmp_path: Path) -> None:
    done = megdet("launch", *SMALL)
    assert done.returncode == 0 and "finished" in done.stdout, done.stdout + done.stderr
    [folder] = (tmp_path / "runs").glob("b*")
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["commit"], plan["dirty"]) == (f"v{__version__}", False)
    status = megdet("status")
    assert status.returncode == 0 and folder.name in status.stdout and "1 finished" in status.stdout, status.stderr
    tables = megdet("tables", "--table", "3", "--provenance")
    assert tables.returncode == 0 and "Table 3" in tables.stdout, tables.stdout + tables.stderr
    assert f"v{__version__}" in tables.stdout and "16-base" in tables.stdout
    for command, file in (("figures", "results/loss.png"), ("report", "results/report.html")):
        drawn = megdet(command)
        assert drawn.returncode == 0 and (tmp_path / file).stat().st_size > 1000, drawn.stdout + drawn.stderr


def test_it_brings_conf_sweeps_and_plugins_and_takes_options_of_the_folder_it_is_used_in(
    megdet: Megdet, tmp_path: Path
) -> None:
    (tmp_path / "conf" / "cluster").mkdir(parents=True)
    (tmp_path / "conf" / "cluster" / "mine.yaml").write_text("name: mine\nnodes: 16\ngpus_per_node: 8\n")
    (tmp_path / "mine.yaml").write_text("rows: [{ask: {batch: 32, bn_size: 32}}, {ask: {batch: 64, bn_size: 32}}]\n")
    planned = megdet("launch", "-m", "sweep=table3", "cluster=mine", "sweep.dry_run=true")
    assert planned.returncode == 0 and "20 new" in planned.stdout, planned.stdout + planned.stderr
    own = megdet(
        "launch", "-m", "sweep.rows=mine.yaml", "cluster=mine", "hydra/launcher=submitit_slurm", "sweep.dry_run=true"
    )
    assert own.returncode == 0 and own.stdout.count("#!/bin/bash") == 2, own.stdout + own.stderr


def test_it_speaks_of_itself_by_the_name_it_was_called_by(megdet: Megdet) -> None:
    assert megdet("--version").stdout == f"megdet {__version__}\n"
    for command in ("launch", "tables", "figures", "report"):
        help_text = megdet(command, "--help").stdout
        assert f"megdet {command} " in help_text and ".py" not in help_text, help_text
    said = megdet("launch", "bath=16")
    assert said.returncode == 2 and "`megdet launch --cfg job`" in said.stderr, said.stderr
    assert "start a run with `megdet launch`" in megdet("status").stderr


def test_the_shell_completes_it(megdet: Megdet) -> None:
    assert megdet("launch", "-sc", "install=bash").stdout.endswith("hydra_bash_completion megdet\n")
    for line, expected in (
        ("megdet st", "status"),
        ("megdet launch model=", "model=tiny"),
        ("megdet launch ", "bn_size="),
    ):
        assert expected in megdet("-sc", "query=bash", COMP_LINE=line).stdout.split()
