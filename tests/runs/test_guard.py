"""The guard of rank 0, with a small program for a rank."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from megdet.runs import causes
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned

RANK = """
import sys, time
from pathlib import Path
from megdet.runs.beats import Beat, write_beat
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.guard import guarded
folder, beats, limit_s = RunFolder(Path(sys.argv[1])).owned_by("test"), int(sys.argv[2]), float(sys.argv[3])
with guarded(folder):
    for step in range(beats):
        try:
            write_beat(folder, Beat("test", 0, step, "in a training step", progress_at=time.time(), limit_s=limit_s))
        except LostOwnership:
            pass
        time.sleep(0.1)
    print("over", flush=True)
    sys.stdin.read()
"""
PATIENCE_S = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run under way, which may take 15 s before its first word."""
    return owned(fabricate_run(tmp_path, {"cluster.timeout_min": 0.25}, status="running", epochs=1))


@contextmanager
def rank(folder: RunFolder, *, beats: int = 10_000, limit_s: float = 2.0) -> Iterator[subprocess.Popen[str]]:
    """A process that gives so many signs of life, a tenth of a second apart, then none until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", RANK, str(folder.path), str(beats), str(limit_s)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            for pid in processes_of(process.pid):
                os.kill(pid, signal.SIGKILL)


def processes_of(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (process / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(process.name))
    return found


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def wait_for_beat(folder: RunFolder) -> None:
    wait_for((folder.beats / "rank0.json").exists)


def names(folder: RunFolder) -> Sequence[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_a_stopped_rank_is_ended_and_named_and_its_guard_ends_too(folder: RunFolder) -> None:
    with rank(folder) as process:
        wait_for_beat(folder)
        process.send_signal(signal.SIGSTOP)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        wait_for(lambda: not processes_of(process.pid))
    failure, state = folder.failure(), folder.state()
    assert failure is not None and failure.rank == 0 and causes.cause_of(failure) is causes.HUNG
    assert re.match(r"rank 0 has not been heard of for \d+ s; it was in a training step, step \d+: ", failure.reason)
    assert state is not None and (state.status, state.reason) == (Status.FAILED, failure.reason)
    assert failure.reason in folder.log(0).read_text()


@pytest.mark.slow
def test_a_rank_that_hangs_so_that_it_cannot_say_so_is_ended(folder: RunFolder) -> None:
    with rank(folder, beats=1) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    failure = folder.failure()
    assert failure is not None and "step 0: it was stopped, or hangs in native code" in failure.reason


def test_a_rank_that_never_gives_a_sign_has_as_long_as_anything_may_take(tmp_path: Path) -> None:
    folder = owned(fabricate_run(tmp_path, {"cluster.timeout_min": 1 / 60}, status="running", epochs=1))
    with rank(folder, beats=0) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    failure = folder.failure()
    assert failure is not None and " s; it had only begun: it was stopped, or" in failure.reason


@pytest.mark.slow
def test_a_rank_that_was_suspended_with_its_guard_goes_on(folder: RunFolder) -> None:
    with rank(folder, limit_s=5) as process:
        wait_for_beat(folder)
        wait_for(lambda: len(processes_of(process.pid)) == 2)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(11)  # it may take five
        os.killpg(process.pid, signal.SIGCONT)
        before = (folder.beats / "rank0.json").read_bytes()
        wait_for(lambda: (folder.beats / "rank0.json").read_bytes() != before)
        assert process.poll() is None and folder.failure() is None


@pytest.mark.parametrize("how", [signal.SIGKILL, None])
def test_a_guard_ends_with_its_rank(how: signal.Signals | None, folder: RunFolder) -> None:
    with rank(folder, beats=5, limit_s=600) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "over\n"
        if how:
            process.send_signal(how)
        else:
            process.stdin.close()
        assert process.wait(PATIENCE_S) == (-how if how else 0)
        wait_for(lambda: not processes_of(process.pid))
    assert folder.failure() is None


@pytest.mark.slow
def test_a_guard_outlives_what_asks_its_rank_to_stop(folder: RunFolder) -> None:
    with rank(folder) as process:
        wait_for_beat(folder)
        (guard,) = set(processes_of(process.pid)) - {process.pid}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            os.kill(guard, number)
        process.send_signal(signal.SIGSTOP)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL


@pytest.mark.slow
def test_a_stopped_rank_whose_folder_is_anothers_by_now_is_ended_without_a_word(tmp_path: Path) -> None:
    folder = owned(fabricate_run(tmp_path, {"cluster.timeout_min": 1 / 12}, status="running", epochs=1))
    with rank(folder, limit_s=5) as process:
        wait_for_beat(folder)
        process.send_signal(signal.SIGSTOP)
        folder.claim("another")
        before = names(folder)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert names(folder) == before and folder.failure() is None
