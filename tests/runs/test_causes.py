"""Why runs failed: real exceptions and dead processes, recorded as training and launchers record them."""

from __future__ import annotations

import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from megdet import cli
from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.data.files import check_files
from megdet.data.settings import DataSettings
from megdet.launchers.jobs import Jobs
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import make_plan
from megdet.runs import causes
from megdet.runs.causes import Cause, Diagnosis, diagnose, group
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.status import Stand, Status
from megdet.training.ending import record_failure
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned


def cuda_out_of_memory() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 12.00 GiB in total.")


def main_memory_is_full() -> None:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def no_other_rank_comes() -> None:
    import torch.distributed as dist

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dist.TCPStore("127.0.0.1", port, 2, True, timedelta(seconds=1))


def the_data_is_not_there() -> None:
    check_files(DataSettings(root="no/such/data"))


def a_file_is_not_there() -> None:
    Path("no/such/file").read_text()


def a_mistake_of_the_code() -> None:
    [][3]


def fail(folder: Path, error: Exception, *, rank: int = 0) -> None:
    """As a rank that failed leaves the folder."""
    (folder / f"log-rank{rank}.txt").write_text("10:00:00 step 20\nW MLflow: Connection refused\n")
    record_failure(owned(folder), rank, error)


def failing(runs: Path, seed: int, action: object, *, rank: int = 0) -> Path:
    folder = fabricate_run(runs, {"seed": seed}, status="running", epochs=1)
    assert callable(action)
    try:
        action()
    except Exception as error:
        fail(folder, error, rank=rank)
        return folder
    raise AssertionError("no error")


def failure_of(folder: Path) -> Diagnosis:
    failure = Jobs().look_at([RunFolder(folder)]).diagnosis(RunFolder(folder))
    assert failure is not None
    return failure


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        (cuda_out_of_memory, causes.CUDA_MEMORY),
        (main_memory_is_full, causes.HOST_MEMORY),
        (no_other_rank_comes, causes.NETWORK),
        (the_data_is_not_there, causes.CONFIG_OR_DATA),
        (a_file_is_not_there, causes.CONFIG_OR_DATA),
        (a_mistake_of_the_code, causes.ERROR),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_rank_s_own_error_gives_the_cause(action: object, cause: Cause, tmp_path: Path) -> None:
    failure = failure_of(failing(tmp_path, 0, action, rank=3))
    assert failure.cause is cause, failure
    assert failure.rank == 3 and failure.log[0] == "10:00:00 step 20"


def test_gpus_out_of_memory_name_a_layout_that_would_fit(tmp_path: Path) -> None:
    reason = failure_of(failing(tmp_path, 0, cuda_out_of_memory)).reason
    assert "has 12.00 GiB in total. What would fit: " in reason and "predicted" in reason, reason


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("os.kill(os.getpid(), 9)", causes.KILLED),
        ("os.kill(os.getpid(), 11)", causes.CRASHED),
        ("print('[rank0]: Watchdog caught collective operation timeout', file=log); os.abort()", causes.NETWORK),
        ("print('NCCL is the backend; MLflow: Connection refused', file=log); os.abort()", causes.CRASHED),
    ],
)
def test_a_rank_that_died_is_judged_by_its_signal_and_last_lines(body: str, cause: Cause, tmp_path: Path) -> None:
    plan = make_plan(Config(gpus=1, cluster=ClusterSettings(gpus_per_node=1), runs_dir=str(tmp_path)))
    folder = folder_of(plan).path
    program = f"import os; log = open({str(folder / 'log-rank0.txt')!r}, 'a', buffering=1); {body}"
    assert run_local(plan, program=("-c", program), machine=Machine(gpus=(), cores=1)) == "failed"
    assert failure_of(folder).cause is cause


def test_what_a_job_knows_counts_more_than_what_the_ranks_saw(tmp_path: Path) -> None:
    folder = failing(tmp_path, 0, no_other_rank_comes)
    assert failure_of(folder).cause is causes.NETWORK
    stand = Stand(Status.INTERRUPTED, "job 7 lost a node")
    diagnosis = diagnose(RunFolder(folder), stand, known=causes.NODE)
    assert diagnosis is not None and diagnosis.cause is causes.NODE


def test_words_around_the_ranks_count_where_nobody_else_said_anything(tmp_path: Path) -> None:
    folder = RunFolder(fabricate_run(tmp_path, {}, status="running", epochs=1))
    stand = Stand(Status.FAILED, "job 7 ended with exit code 1 and did not say why")
    for line, cause in (
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks", causes.HOST_MEMORY),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 10:00:00 DUE TO TIME LIMIT ***", causes.TIME_LIMIT),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 10:00:00 DUE TO NODE FAILURE, SEE ***", causes.NODE),
        ("something else", causes.ERROR),
    ):
        diagnosis = diagnose(folder, stand, job_log=("step 20", line))
        assert diagnosis is not None and diagnosis.cause is cause and diagnosis.log[-1] == line


def test_runs_that_came_to_a_result_or_were_only_asked_to_stop_are_no_failures(tmp_path: Path) -> None:
    for seed, state in enumerate(("finished", "interrupted")):
        folder = fabricate_run(tmp_path, {"seed": seed}, status=state)  # type: ignore[arg-type]
        assert Jobs().look_at([RunFolder(folder)]).diagnosis(RunFolder(folder)) is None
    for status in ("new", "queued", "running", "requeued", "cancelled"):
        assert diagnose(RunFolder(folder), Stand(Status(status))) is None


def test_a_diverged_run_is_a_result_with_its_own_advice(tmp_path: Path) -> None:
    folder = fabricate_run(tmp_path, {"bn_size": 0}, status="diverged", epochs=1, reason="the loss is nan")
    failure = failure_of(folder)
    assert failure.cause is causes.DIVERGED and failure.reason == "the loss is nan"
    assert "never run again" in failure.cause.advice


def test_failures_are_grouped_by_cause_and_unknown_errors_by_their_words(tmp_path: Path) -> None:
    def index(number: int) -> None:
        raise KeyError(f"image {number}")

    actions = [cuda_out_of_memory, lambda: index(1), a_mistake_of_the_code, cuda_out_of_memory, lambda: index(22)]
    found = [failure_of(failing(tmp_path, seed, action)) for seed, action in enumerate(actions)]
    names = [[found.index(failure) for failure in alike] for alike in group(found)]
    assert names == [[0, 3], [1, 4], [2]]


def test_why_says_which_runs_the_last_lines_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (failing(tmp_path, seed, cuda_out_of_memory, rank=seed) for seed in (0, 1))
    fabricate_run(tmp_path, {"seed": 2})
    assert cli.main(["why", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "CUDA out of memory: 2 runs" in out
    assert f"{first.name} (rank 0)" in out and f"{second.name} (rank 1)" in out
    assert "| 10:00:00 step 20" in out and "sublinear=true" in out
    assert out.count("What to do") == 1


def test_why_of_runs_that_all_went_well_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {})
    assert cli.main(["why", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing went wrong with 1 run\n"


def test_why_loads_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    failing(tmp_path, 0, a_mistake_of_the_code)
    program = (
        "import sys; from megdet import cli; cli.main(['why', sys.argv[1]]); "
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_finished_run_whose_plan_is_damaged_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 32})
    (damaged / "plan.json").write_text("{")
    assert cli.main(["why", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("damaged records: 1 run\n") and str(damaged / "plan.json") in said
