"""A run that loses its nodes for good on a real cluster: it goes on on the others, as the same run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.sweeps import ROOT, SMALL, job_of, run_program, state_of_run, wait_for_run, wait_for_steps
from tests.slurm.test_interruptions import LONG, TWO_NODES

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

KEPT = "node1"
"""The node that stays in service."""


@pytest.fixture(autouse=True)
def _all_nodes_after(slurm: SlurmCluster) -> Iterator[None]:
    yield
    slurm.call("scancel", "--user=root")
    slurm.call("scontrol", "update", f"NodeName={others(slurm)}", "State=RESUME")


def others(slurm: SlurmCluster) -> str:
    """All nodes but the one that stays."""
    return ",".join(sorted(set(slurm.call("sinfo", "--noheader", "--Node", "--format=%N").split()) - {KEPT}))


def test_a_requeued_run_whose_nodes_are_drained_ends_on_the_one_that_is_left(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    log = tmp_path / "launch.txt"
    words = [*SMALL, *TWO_NODES, *LONG, "cluster.elastic=true", "cluster.elastic_after_min=0"]
    environment = {**os.environ, **slurm.environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        launcher = subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *words],
            cwd=tmp_path, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        run = wait_for_folder(tmp_path, launcher, log)
        wait_for_steps(run)
        job = job_of(run)
        slurm.call("scontrol", "update", f"NodeName={others(slurm)}", "State=DRAIN", "Reason=repair")
        slurm.call("scontrol", "requeue", job)
        ended = wait_for_run(run, "finished", attempts=2, timeout_s=280)
        assert launcher.wait(timeout=120) == 0, log.read_text()[-3000:]
    finally:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait(timeout=60)
    assert (
        "the nodes that it waits for are out of service; 1 node x 1 GPUs instead of 2 nodes x 1 GPUs" in log.read_text()
    )
    plan, submission = (json.loads((run / name).read_text()) for name in ("plan.json", "submission.json"))
    assert (plan["layout"]["gpus"], plan["config"]["batch"], plan["config"]["bn_size"]) == (1, 4, 2)
    assert submission["history"] == [job] and ended["attempts"] == 2
    # Two GPUs until then, one from there on: the mean lies between, and both parts are counted.
    seconds = ended["train_s"] + ended["eval_s"]
    assert 1.0 < ended["gpu_s"] / seconds < 2.0, state_of_run(run)
    journal = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    resumed = [line for line in journal if line.get("event") == "resumed"]
    assert len(resumed) == 1 and resumed[0]["step"] > 0
    shown = run_program(slurm, tmp_path, "-m", "megdet.cli", "tables", "--table", "3", "--format", "csv")
    ours = [row for row in csv.DictReader(shown.stdout.splitlines()) if row["# of GPUs"]]
    assert [(row["Batch size"][0], float(row["# of GPUs"])) for row in ours] == [
        ("4", pytest.approx(ended["gpu_s"] / seconds, abs=0.01))
    ], shown.stdout + shown.stderr


def wait_for_folder(folder: Path, launcher: subprocess.Popen[bytes], log: Path) -> Path:
    """Of the run, once it has a job."""

    def is_there() -> bool:
        assert launcher.poll() is None, log.read_text()
        return any((folder / "runs").glob("*/submission.json"))

    assert wait_until(is_there, timeout_s=180), log.read_text()
    return next((folder / "runs").glob("*/submission.json")).parent
