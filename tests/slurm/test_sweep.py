"""The card's command in miniature on a real cluster: planned, submitted, trained on several nodes, tabulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from tests.slurm.cluster import SlurmCluster
from tests.slurm.configuration import MAX_ARRAY_SIZE
from tests.slurm.sweeps import ONE_JOB_A_NODE, ROOT, SMALL, job_of, launch, logs_of, run_program, state_of_run

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

SWEEP = ["batch=2,8", "bn_size=0,2,8"]
"""Six points: 1, 2 and 2 ranks on one node, 4 on two, 8 on four; batch 2 with BN over 8 images cannot be."""


def test_a_sweep_is_trained_on_one_to_eight_ranks_and_tabulated(slurm_accounting: SlurmCluster, tmp_path: Path) -> None:
    done = launch(slurm_accounting, tmp_path, "-m", *SMALL, ONE_JOB_A_NODE, *SWEEP)
    said = done.stdout + done.stderr
    runs = sorted(path.parent for path in (tmp_path / "runs").glob("*/plan.json"))
    logs = "\n".join(logs_of(run) for run in runs)
    assert done.returncode == 0, said + logs
    assert "invalid" in said and "bn_size=8" in said
    layouts = [json.loads((run / "plan.json").read_text())["layout"] for run in runs]
    places = sorted((layout["nodes"], layout["gpus"]) for layout in layouts)
    assert places == [(1, 1), (1, 2), (1, 2), (2, 4), (4, 8)]
    assert {state_of_run(run)["status"] for run in runs} == {"finished"}, logs

    # Asked for again, there is nothing to do.
    again = launch(slurm_accounting, tmp_path, "-m", *SMALL, ONE_JOB_A_NODE, *SWEEP)
    assert again.returncode == 0 and "job " not in again.stdout, again.stdout + again.stderr
    assert {state_of_run(run)["attempts"] for run in runs} == {1}

    tables = run_program(slurm_accounting, tmp_path, str(ROOT / "analysis/make_tables.py"), "--from", "runs")
    assert tables.returncode == 0, tables.stdout + tables.stderr
    assert "mmAP" in tables.stdout


def test_one_run_is_trained_on_sixteen_ranks_of_eight_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    one_epoch = ["schedule.epochs=1", "schedule.milestones=[]", "schedule.factors=[]"]
    done = launch(slurm, tmp_path, "-m", *SMALL, *one_epoch, "batch=16", "bn_size=2")
    (run,) = [path.parent for path in (tmp_path / "runs").glob("*/plan.json")]
    assert done.returncode == 0, done.stdout + done.stderr + logs_of(run)
    layout = json.loads((run / "plan.json").read_text())["layout"]
    assert (layout["nodes"], layout["gpus"], state_of_run(run)["status"]) == (8, 16, "finished")


def test_a_run_that_goes_on_from_another_waits_for_its_job_and_both_run_a_copy_of_the_code(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    small = [word for word in SMALL if not word.startswith("schedule.epochs=")]
    done = launch(slurm, tmp_path, "-m", *small, "batch=2", "bn_size=0", "schedule.epochs=2,3")
    runs = sorted((path.parent for path in (tmp_path / "runs").glob("*/plan.json")), key=job_of)
    assert done.returncode == 0, done.stdout + done.stderr + "".join(map(logs_of, runs))
    first, second = (read_journal(RunFolder(run), kinds=("event",)) for run in runs)
    assert [line["event"] for line in second] == ["started", "forked", "resumed", "finished"]
    assert (second[1]["run"], second[1]["epochs"]) == (runs[0].name, 2)
    assert second[2]["time"] > first[-1]["time"], "it began when the other one had ended"
    (copy,) = (tmp_path / "runs" / ".code").iterdir()
    assert {line["code_sha256"] for line in (*first, *second) if "code_sha256" in line} == {copy.name}
    # What Python has compiled there was imported from there.
    assert list(copy.glob("megdet/training/__pycache__/attempt.*.pyc"))
    assert list(copy.glob("megdet/launchers/slurm/__pycache__/rank.*.pyc"))


def test_the_papers_table_3_is_planned_on_its_cluster_and_nothing_runs(slurm: SlurmCluster, tmp_path: Path) -> None:
    words = ("sweep=table3", "cluster=paper", "hydra/launcher=submitit_slurm", "sweep.dry_run=true")
    done = launch(slurm, tmp_path, "-m", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    # The largest of its rows: 128 GPUs, a job of 16 nodes.
    assert "--nodes=16" in done.stdout and "--gpus-per-node=8" in done.stdout
    assert not (tmp_path / "runs").exists()
    assert slurm.call("squeue", "--noheader", "--states=pending,running", "--name=megdet") == ""


def test_each_script_of_table_3_is_one_that_slurm_takes(slurm: SlurmCluster, tmp_path: Path) -> None:
    words = ("sweep=table3", "cluster=paper", "hydra/launcher=submitit_slurm", "sweep.dry_run=true")
    said = launch(slurm, tmp_path, "-m", *words).stdout
    scripts = ["#!/bin/bash" + part.split("\n--- ")[0] for part in said.split("#!/bin/bash")[1:]]
    assert scripts
    for number, script in enumerate(scripts):
        path = tmp_path / f"{number}.sh"
        # What is larger than an array of this cluster would be submitted in parts.
        path.write_text("\n".join(line for line in script.splitlines() if "--array" not in line))
        asked = slurm.try_call("sbatch", "--test-only", str(path))
        assert asked.returncode == 0 and "to start at" in asked.stderr, asked.stderr + script


def test_invalid_points_can_stop_a_sweep_before_anything_is_submitted(slurm: SlurmCluster, tmp_path: Path) -> None:
    done = launch(slurm, tmp_path, "-m", *SMALL, *SWEEP, "sweep.on_invalid=error")
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_more_runs_than_an_array_may_hold_become_two_arrays(slurm: SlurmCluster, tmp_path: Path) -> None:
    count = MAX_ARRAY_SIZE + 1
    seeds = ",".join(str(seed) for seed in range(count))
    begin = "+cluster.sbatch_options.begin=now+1hour"
    done = launch(slurm, tmp_path, "-m", *SMALL, "batch=2", "bn_size=0", f"seed={seeds}", begin, "sweep.wait=false")
    assert done.returncode == 0, done.stdout + done.stderr
    submissions = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/submission.json")]
    arrays = {submission["array"] for submission in submissions}
    try:
        assert len(submissions) == count and len(arrays) == 2
        waiting = slurm.call("squeue", "--noheader", "--array", "--format=%F", f"--jobs={','.join(arrays)}")
        assert len(waiting.splitlines()) == count
    finally:
        slurm.call("scancel", *arrays)
