"""What happens to runs on a real cluster when they are preempted, requeued, cancelled, or lose a rank or a node."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.configuration import PREEMPTIBLE
from tests.slurm.daemons import wait_until
from tests.slurm.jobs import field_of, submit, wait_for
from tests.slurm.sweeps import (
    job_of,
    ranks_of,
    run_program,
    state_of_run,
    status_of,
    submit_runs,
    wait_for_run,
    wait_for_steps,
)

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

TWO_NODES = [
    "batch=4", "bn_size=2", "gpus=2", "images_per_gpu=1", "cluster.gpus_per_node=1", "cluster.bn_across_nodes=true",
]  # fmt: skip
"""Two ranks that share BN statistics, a node each."""
LONG = ["schedule.epochs=16", "schedule.milestones=[12]"]
"""Some 20 seconds of training: time to be interrupted in."""


def on_nodes(names: str) -> str:
    """The override for a run on exactly these nodes, so that tests do not meet."""
    return f'+cluster.sbatch_options.nodelist="{names}"'


@pytest.fixture(autouse=True)
def _nothing_left_behind(slurm: SlurmCluster) -> Iterator[None]:
    yield
    slurm.call("scancel", "--user=root")


def test_a_preempted_run_makes_room_and_goes_on_later(slurm: SlurmCluster, tmp_path: Path) -> None:
    place = ["cluster.partition=" + PREEMPTIBLE, on_nodes("node[1-2]"), "tracking.enabled=true"]
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, *LONG, *place)
    wait_for_steps(run)
    urgent = submit(slurm, tmp_path, "sleep 1", "--nodelist=node1", "--exclusive")
    before = wait_for_run(run, "interrupted")
    assert before["step"] >= 2
    assert wait_for(slurm, urgent) == "COMPLETED"
    state = wait_for_run(run, "finished", attempts=2)
    assert wait_for(slurm, job_of(run)) == "COMPLETED"
    assert (state["attempts"], field_of(slurm, job_of(run), "Restarts")) == (2, "1")
    assert [line["step"] for line in _journal(run) if line.get("event") == "resumed"] == [before["step"]]
    # One run: hours are summed, and MLflow has it once.
    assert state["train_s"] > before["train_s"] > 0
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as mlflow:
        assert mlflow.execute("select status from runs").fetchall() == [("FINISHED",)]


def test_a_run_over_its_time_limit_goes_on_by_itself_though_its_jobs_are_short(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    limit = ["cluster.time_min=1", "cluster.signal_delay_s=25", on_nodes("node[3-4]")]
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, "schedule.epochs=200", "schedule.milestones=[150]", *limit)
    # Slurm looks at time limits every half minute: the signal may come that much earlier than asked for.
    before = wait_for_run(run, "interrupted", timeout_s=150)
    wait_for_run(run, "running", attempts=2, timeout_s=150)
    wait_for_steps(run, before["step"] + 2)


def test_a_requeued_run_goes_on_in_its_folder(slurm: SlurmCluster, tmp_path: Path) -> None:
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, *LONG, on_nodes("node[5-6]"))
    wait_for_steps(run)
    slurm.call("scontrol", "requeue", job_of(run))
    state = wait_for_run(run, "finished", attempts=2)
    assert state["attempts"] == 2
    assert wait_for(slurm, job_of(run)) == "COMPLETED"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_fails_its_job_at_once_where_it_is_not_retried(
    slurm: SlurmCluster, tmp_path: Path, rank: int
) -> None:
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, *LONG, "cluster.max_retries=0", on_nodes("node[7-8]"))
    wait_for_steps(run)
    os.kill(ranks_of(run)[rank], signal.SIGKILL)
    assert wait_for(slurm, job_of(run), timeout_s=150) == "FAILED"
    assert field_of(slurm, job_of(run), "ExitCode") != "0:0"
    assert state_of_run(run)["status"] == "failed"
    failure = json.loads((run / "failure.json").read_text())
    assert "SIGKILL" in failure["reason"]
    assert ranks_of(run) == {}
    why = run_program(slurm, tmp_path, "-m", "megdet.cli", "why")
    assert run.name in why.stdout and "SIGKILL" in why.stdout, why.stdout + why.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_with_a_killed_rank_goes_on_by_itself(slurm: SlurmCluster, tmp_path: Path, rank: int) -> None:
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, *LONG, on_nodes("node[7-8]"))
    wait_for_steps(run)
    os.kill(ranks_of(run)[rank], signal.SIGKILL)
    assert wait_for_run(run, "finished", attempts=2)["attempts"] == 2
    assert wait_for(slurm, job_of(run)) == "COMPLETED"


def test_a_run_of_one_rank_that_is_stopped_goes_on_by_itself(slurm: SlurmCluster, tmp_path: Path) -> None:
    one_rank = ["batch=2", "bn_size=0", "gpus=1", "cluster.timeout_min=0.5", on_nodes("node11")]
    (run,) = submit_runs(slurm, tmp_path, *one_rank, *LONG)
    wait_for_steps(run)
    os.kill(ranks_of(run)[0], signal.SIGSTOP)
    state = wait_for_run(run, "finished", attempts=2, timeout_s=240)
    assert state["attempts"] == 2 and wait_for(slurm, job_of(run)) == "COMPLETED"
    said = [str(line["reason"]) for line in _journal(run) if line.get("event") == "resumed"]
    assert "rank 0 has not been heard of for" in "".join(said) + (run / "log-rank0.txt").read_text()


def test_a_run_whose_node_dies_goes_on_on_what_is_left(slurm: SlurmCluster, tmp_path: Path) -> None:
    (run,) = submit_runs(slurm, tmp_path, *TWO_NODES, *LONG, '+cluster.sbatch_options.exclude="node[1-12]"')
    wait_for_steps(run)
    nodes = slurm.call("scontrol", "show", "hostnames", field_of(slurm, job_of(run), "NodeList")).split()
    slurm.kill_node(nodes[1])
    try:
        state = wait_for_run(run, "finished", attempts=2)
        assert state["attempts"] == 2
        assert wait_for(slurm, job_of(run)) == "COMPLETED"
        assert nodes[1] not in slurm.call("scontrol", "show", "hostnames", field_of(slurm, job_of(run), "NodeList"))
    finally:
        slurm.start_node(nodes[1])
        assert wait_until(lambda: slurm.states_of_nodes()[nodes[1]] == "idle", timeout_s=150)


def test_cancelled_elements_of_an_array_leave_the_others(slurm_accounting: SlurmCluster, tmp_path: Path) -> None:
    two_at_a_time = ["batch=2", "bn_size=0", "seed=0,1,2", "cluster.array_parallelism=2"]
    goes_on, under_way, waiting = submit_runs(slurm_accounting, tmp_path, *two_at_a_time, *LONG)
    assert len({job_of(run).partition("_")[0] for run in (goes_on, under_way, waiting)}) == 1
    slurm_accounting.call("scancel", job_of(waiting))
    wait_for_steps(under_way)
    slurm_accounting.call("scancel", job_of(under_way))
    assert wait_for(slurm_accounting, job_of(under_way)) == "CANCELLED"
    assert wait_for_run(goes_on, "finished")["attempts"] == 1
    assert wait_for(slurm_accounting, job_of(goes_on)) == "COMPLETED"
    states = [status_of(slurm_accounting, run) for run in (goes_on, under_way, waiting)]
    # Neither controller nor accounts remember an element that was cancelled before it started.
    assert states == ["finished", "cancelled", "cancelled"]
    assert state_of_run(under_way)["status"] == "interrupted" and state_of_run(waiting) == {}


def test_a_run_that_megdet_cancels_writes_a_checkpoint_and_is_gone_on_with_when_asked_for_again(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    asked = [*TWO_NODES, *LONG, on_nodes("node[9-10]")]
    (run,) = submit_runs(slurm, tmp_path, *asked)
    wait_for_steps(run)
    done = run_program(slurm, tmp_path, "-m", "megdet.cli", "cancel", run.name)
    assert done.returncode == 0, done.stdout + done.stderr
    state = wait_for_run(run, "interrupted", timeout_s=150)
    assert wait_for(slurm, job_of(run)) == "CANCELLED"
    assert state["step"] >= 2 and status_of(slurm, run) == "cancelled"
    assert submit_runs(slurm, tmp_path, *asked) == [run]
    wait_for_run(run, "finished", attempts=2)
    assert [line["step"] for line in _journal(run) if line.get("event") == "resumed"] == [state["step"]]


def _journal(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
