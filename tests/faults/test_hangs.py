"""Runs in which something stands still: they end in time, and say which rank it was and where."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from megdet.cli.table import table_of
from megdet.launchers.jobs import Jobs
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import Plan
from megdet.runs import causes
from megdet.runs.beats import Beat, read_beats, write_beat
from megdet.runs.causes import Diagnosis
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import read_journal
from megdet.runs.status import Stand, Status
from megdet.training.distributed import bn_group_of
from megdet.training.watchdog import READING, TRAINING, Watchdog
from tests.faults.runs import a_plan, is_the_same_as
from tests.ranks import run_ranks
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned

TIMEOUT_MIN = 0.4
"""Long enough for ranks to begin on a busy machine."""


def wait_in_vain() -> float:
    """Rank 0 waits for rank 1 in their BN group; how long."""
    group = bn_group_of(dist.get_rank(), world_size=2, bn_group=2, timeout=timedelta(seconds=1))
    began = time.monotonic()
    if dist.get_rank() == 0:
        with pytest.raises(RuntimeError, match=r"(?i)time"):
            dist.all_reduce(torch.zeros(1), group=group)
    return time.monotonic() - began


def test_a_bn_group_has_the_time_out_of_the_run() -> None:
    assert 0.9 < run_ranks(2, wait_in_vain)[0] < 10


def two_ranks(tmp_path: Path, shapes_root: Path, *, max_retries: int = 0) -> Plan:
    return on_ranks(2, tmp_path, shapes_root, max_retries=max_retries)


def on_ranks(ranks: int, tmp_path: Path, shapes_root: Path, *, max_retries: int = 0) -> Plan:
    plan = a_plan(tmp_path, shapes_root, gpus=ranks)
    cluster = plan.config.cluster
    cluster.timeout_min, cluster.max_retries = TIMEOUT_MIN, max_retries
    return plan


def failed(plan: Plan, program: Path) -> Diagnosis:
    """A run of that program came to its end in time; why it failed."""
    began = time.monotonic()
    assert run_local(plan, program=(str(program),)) == Status.FAILED
    assert time.monotonic() - began < 150
    folder = folder_of(plan)
    diagnosis = Jobs().look_at([folder]).diagnosis(folder)
    assert diagnosis is not None and diagnosis.cause is causes.HUNG, diagnosis
    return diagnosis


def program(tmp_path: Path, patch: str) -> Path:
    """A rank of which a part is replaced."""
    file = tmp_path / "rank.py"
    head = "import os, time\nfrom megdet.data.loader import TrainLoader\nfrom megdet.training import attempt\n"
    file.write_text(f"{head}{patch}\nfrom megdet import run\nos._exit(run.main())\n")
    return file


HANGING_LOADER = """
real = TrainLoader.epoch
def epoch(self, *given, **named):
    for number, step in enumerate(real(self, *given, **named)):
        if number == 2 and self.rank == 1:
            time.sleep(1000)
        yield step
TrainLoader.epoch = epoch
"""
HANGING_EVALUATION = "attempt.coco_metrics = lambda *_: time.sleep(1000)"
HANGING_STEP = """
from megdet.model.detector import Detector
real, passes = Detector.forward, []
def forward(self, *given):
    passes.append(1)
    if len(passes) == 3 and os.environ["RANK"] == "1":
        time.sleep(1000)
    return real(self, *given)
Detector.forward = forward
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "rank", "what"),
    [
        (HANGING_LOADER, 1, "reading images, step 2"),
        (HANGING_EVALUATION, 0, "scoring, step 4"),
        (HANGING_STEP, 1, "in a training step, step 2"),
    ],
    ids=["loader", "evaluation", "step"],
)
def test_the_rank_that_hangs_is_named_with_what_it_does(
    patch: str, rank: int, what: str, tmp_path: Path, shapes_root: Path
) -> None:
    diagnosis = failed(two_ranks(tmp_path, shapes_root), program(tmp_path, patch))
    assert diagnosis.rank == rank and f"rank {rank} made no progress for" in diagnosis.reason
    assert what in diagnosis.reason and ".py:" in diagnosis.reason


def stop_ranks(folder: RunFolder, ranks: Sequence[int], *, after_step: int) -> None:
    while not any(line["step"] >= after_step and line["kind"] == "step" for line in read_journal(folder)):
        time.sleep(0.05)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = str(folder.plan).encode() in (process / "cmdline").read_bytes()
            values = (process / "environ").read_bytes().split(b"\0")
            if named and any(f"RANK={rank}".encode() in values for rank in ranks):
                os.kill(int(process.name), signal.SIGSTOP)
        except OSError:
            continue


@pytest.fixture(scope="module")
def undisturbed_on(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Callable[[int], RunFolder]:
    """The run that nothing disturbs, on so many ranks."""

    @cache
    def run(ranks: int) -> RunFolder:
        plan = a_plan(tmp_path_factory.mktemp("undisturbed"), shapes_root, gpus=ranks)  # nothing hangs: all its time
        assert run_local(plan) == Status.FINISHED
        return folder_of(plan)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "stopped"), [(2, [0]), (2, [1]), (2, [0, 1]), (1, [0])])
def test_a_stopped_rank_is_noticed_and_the_run_goes_on_to_the_same_end(
    ranks: int,
    stopped: list[int],
    undisturbed_on: Callable[[int], RunFolder],
    tmp_path: Path,
    shapes_root: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    undisturbed = undisturbed_on(ranks)
    plan = on_ranks(ranks, tmp_path, shapes_root, max_retries=1)
    folder = folder_of(plan)
    thread = threading.Thread(target=stop_ranks, args=(folder, stopped), kwargs={"after_step": 2})
    thread.start()
    assert run_local(plan) == Status.FINISHED
    thread.join()
    state = folder.state()
    assert state is not None and state.attempts == 2
    said = rf"rank {stopped[0]} has not been heard of for \d+ s.*: started again from its last checkpoint \(1 of 1\)"
    assert re.search(said, capfd.readouterr().err)
    assert is_the_same_as(folder, undisturbed)


def test_a_rank_that_is_not_heard_of_is_the_cause(tmp_path: Path) -> None:
    folder = owned(tmp_path)
    ends: list[int] = []
    write_beat(folder, Beat("test", 1, step=7, phase=TRAINING, progress_at=time.time(), limit_s=1.0))
    os.utime(folder.beats / "rank1.json", (time.time() - 100, time.time() - 100))
    with Watchdog(folder, 0, timeout_s=0.5, end=ends.append) as watchdog:
        watchdog.doing(TRAINING)
        wait_for(lambda: bool(ends))
    failure = folder.failure()
    assert failure is not None and failure.rank == 1 and causes.cause_of(failure) is causes.HUNG
    assert re.match(r"rank 1 has not been heard of for 1\d\d s; it was in a training step, step 7", failure.reason)


def test_a_rank_that_makes_progress_is_left_alone_and_one_that_waits_for_it_too(tmp_path: Path) -> None:
    folder = owned(tmp_path)
    ends: list[int] = []
    saving, waiting = (Watchdog(folder, rank, timeout_s=0.5, end=ends.append) for rank in (0, 1))
    with saving, waiting:
        waiting.doing(TRAINING)
        for _ in range(20):
            saving.doing("evaluating")
            time.sleep(0.1)
        assert not ends, "2 s, and 0.5 s are allowed"


def test_an_attempt_that_lost_its_folder_ends_though_it_writes_nothing(tmp_path: Path) -> None:
    folder = owned(tmp_path)
    ends: list[int] = []
    with Watchdog(folder, 1, timeout_s=60, end=ends.append) as watchdog:
        watchdog._every_s = watchdog._grace_s = 0.1
        watchdog.doing("evaluating")
        folder.claim("another")
        before = {path.name for path in tmp_path.iterdir()}
        wait_for(lambda: bool(ends), timeout_s=60)
    assert ends[0] == 3 and {path.name for path in tmp_path.iterdir()} == before


def wait_for(condition: object, timeout_s: float = 20.0) -> None:
    assert callable(condition)
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_status_says_which_rank_made_no_step_for_how_long(tmp_path: Path) -> None:
    from rich.console import Console

    folder = owned(fabricate_run(tmp_path, {}, status="running", epochs=1))
    moments = ((0, 4.0), (1, 200.0), (2, 3.0))
    for rank, ago in moments:
        write_beat(folder, Beat("test", rank, step=7, phase=READING, progress_at=time.time() - ago, limit_s=600))
    assert len(read_beats(folder)) == 3 and read_beats(owned(tmp_path / "other")) == []
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(table_of({RunFolder(folder.path): Stand(Status.RUNNING, "job 7")}))
    assert "no step for 3 min: rank 1 reading images (job 7)" in console.export_text()
