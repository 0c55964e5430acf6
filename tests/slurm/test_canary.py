"""Canaries on a real Slurm: runs wait for them, start with what they measured, and never start where one has failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.sweeps import SMALL, job_of, launch, logs_of, run_program, state_of_run

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

ONE_RANK = ["batch=2", "bn_size=2", "schedule.epochs=1", "schedule.milestones=[]", "schedule.factors=[]"]
LONG_JOBS = "cluster.time_min=240"
PATIENCE_S = 180.0


def test_runs_start_behind_their_canary_and_not_behind_one_that_failed(slurm: SlurmCluster, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    module_is_missing = "name: mine\ncustom: {_target_: not_on_the_nodes.Optimizer}\n"
    (tmp_path / "conf" / "optimizer" / "mine.yaml").write_text(module_is_missing)
    words = ["-m", *SMALL, LONG_JOBS, *ONE_RANK, "optimizer=sgd,mine", "sweep.canary=true"]
    done = launch(slurm, tmp_path, *words)
    said = done.stdout + done.stderr
    canaries = {path.parent.name: path.parent for path in (tmp_path / "runs/.canaries").glob("*/plan.json")}
    assert done.returncode == 1 and len(canaries) == 2, said + "".join(map(logs_of, canaries.values()))

    runs = {path.parent.name: path.parent for path in (tmp_path / "runs").glob("*/submission.json")}
    assert runs.keys() == canaries.keys()
    good, bad = sorted(runs, key=lambda name: not state_of_run(runs[name]))
    assert state_of_run(runs[good])["status"] == "finished" and not state_of_run(runs[bad]), said
    # It began after its canary had ended, and with a time limit by what that had measured.
    assert state_of_run(runs[good])["started"] >= state_of_run(canaries[good])["ended"]
    limit = slurm.call("squeue", "--noheader", "--states=all", f"--jobs={job_of(runs[good])}", "--format=%l")
    assert limit == "1:00:00"
    assert json.loads((canaries[good] / "canary.json").read_text())["steps"] == 8, "an epoch of 16 images"

    # Nothing waits for ever, and every command says why.
    assert slurm.call("squeue", "--noheader", "--states=pending") == ""
    missing = "not_on_the_nodes"
    assert f"canary {bad} failed" in said and missing in said
    for command in ("status", "why"):
        shown = run_program(slurm, tmp_path, "-m", "megdet.cli", command).stdout
        assert f"canary {bad} failed: " in shown and missing in shown, shown

    # Canaries are no results.
    tables = run_program(slurm, tmp_path, "-m", "megdet.cli", "tables", "--provenance").stdout
    assert good in tables and bad not in tables


def test_a_budget_is_checked_again_by_what_was_measured_though_no_launcher_waits(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    budget = ["sweep.canary=true", "sweep.max_gpu_hours=1e-7", "sweep.wait=false"]
    done = launch(slurm, tmp_path, "-m", *SMALL, *ONE_RANK, "seed=0,1", *budget)
    # Before, nothing is known of this model's hours: nothing is refused.
    assert done.returncode == 0, done.stdout + done.stderr
    [canary] = [path.parent for path in (tmp_path / "runs/.canaries").glob("*/plan.json")]
    live = ("squeue", "--noheader", "--states=pending,running,completing", "--format=%i %r")
    assert wait_until(lambda: slurm.call(*live) == "", timeout_s=PATIENCE_S), slurm.call(*live) + logs_of(canary)
    why = run_program(slurm, tmp_path, "-m", "megdet.cli", "why").stdout
    assert "over the budget: 2 runs" in why and "by what canaries have measured" in why, why + logs_of(canary)
    assert not list((tmp_path / "runs").glob("*/state.json"))


def test_shapes_has_the_starts_that_slurm_gives(slurm: SlurmCluster, tmp_path: Path) -> None:
    words = ("shapes", "batch=64", "bn_size=16", "hydra/launcher=submitit_slurm", "--json")
    done = run_program(slurm, tmp_path, "-m", "megdet.cli", *words)
    assert done.returncode == 0, done.stderr
    layouts = json.loads(done.stdout)["layouts"]
    assert layouts and all(one["start"] and one["end"] for one in layouts), done.stdout
    assert [one["end"] for one in layouts] == sorted(one["end"] for one in layouts)
