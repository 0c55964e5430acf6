"""Very many runs of trivial payload through a real Slurm: none is lost, none comes twice, nothing takes long.

MEGDET_RUNS says how many (60).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import NoSlurm, SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.sweeps import ROOT, SMALL, launch, run_program
from tests.slurm.trivial import EXECUTIONS

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

RUNS = int(os.environ.get("MEGDET_RUNS", "60"))
SITE_ARRAY_SIZE = 401
"""More than one array for a thousand runs; Slurm's own default is 1001."""


@pytest.fixture(scope="module")
def large() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        cluster = SlurmCluster(Path(folder) / "cluster")
        Path(folder).chmod(0o755)
        try:
            cluster.up(nodes=16, accounting=False, max_array_size=SITE_ARRAY_SIZE)
        except NoSlurm as error:
            pytest.skip(str(error))
        try:
            yield cluster
        finally:
            cluster.down()


def trivial_python(folder: Path) -> Path:
    """A stand-in for the nodes' Python. It is called as `-u -m submitit.core._submit FOLDER`."""
    program = folder / "python"
    program.write_text(
        f'#!/bin/sh\nfor last; do :; done\nexport PYTHONPATH={ROOT} MEGDET_TRIVIAL="$last/runs.json"\n'
        f"exec {sys.executable} -m tests.slurm.trivial\n"
    )
    program.chmod(0o755)
    return program


def test_of_very_many_runs_none_is_lost_and_none_comes_twice(large: SlurmCluster, tmp_path: Path) -> None:
    words = [*SMALL, "batch=2", "bn_size=2", "gpus=1", f"cluster.python={trivial_python(tmp_path)}"]
    times = {}

    def timed(name: str, *command: str) -> str:
        began = time.monotonic()
        done = run_program(large, tmp_path, *command, timeout_s=600)
        times[name] = round(time.monotonic() - began, 1)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    # Held until all are there: on a cluster, jobs do not run on the machine that submits them.
    held = [f"seed=range(0,{RUNS})", "sweep.wait=false", "+cluster.sbatch_options.hold=true"]
    timed("submission", str(ROOT / "launch.py"), "-m", *words, *held)
    began = time.monotonic()
    arrays = large.call("squeue", "--noheader", "--format=%F").split()
    large.call("scontrol", "release", *sorted(set(arrays)))
    assert wait_until(lambda: large.call("squeue", "--noheader") == "", timeout_s=1500, every_s=2)
    times["all jobs"] = round(time.monotonic() - began, 1)
    folders = list((tmp_path / "runs").glob("b*"))
    executions = [(folder / EXECUTIONS).read_text().splitlines() for folder in folders]
    assert len(folders) == RUNS and all(len(jobs) == 1 for jobs in executions), "lost, or twice"
    assert len({job for (job,) in executions}) == RUNS
    shown = timed("megdet status", "-m", "megdet.cli", "status")
    assert shown.count(" finished ") == RUNS, shown[:2000]
    timed("make_tables", str(ROOT / "analysis/make_tables.py"), "--from", "runs")
    again = launch(large, tmp_path, "-m", *words, f"seed=range(0,{RUNS})", timeout_s=600)
    assert again.returncode == 0 and "job " not in again.stdout, again.stdout[-3000:] + again.stderr
    print(f"\n{RUNS} runs, seconds: {times}")
