"""Watching runs: what is said, when it ends, and what the exit code is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from megdet.launchers.slurm.intents import declare, fulfil
from megdet.launchers.slurm.payload import Payload, job_log
from megdet.launchers.watch import watch
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import Command, PlanFor, make_folder


@pytest.fixture
def runs(plan_for: PlanFor, command: Command) -> list[RunFolder]:
    """Two runs that were handed over, to a Slurm without accounting that knows the first of them alone."""
    folders = [make_folder(plan_for(16, 16, seed=seed)) for seed in (0, 1)]
    payload = Payload.of(folders[0].path.parent / ".submissions" / "sweep-1", folders)
    declare(payload)
    for number in (0, 1):
        job_log(payload.folder, f"7_{number}").touch()
    fulfil(payload, "7")
    command("squeue", "echo '7_0|RUNNING|0|sweep-1|None|'")
    command("sacct", "exit 1")
    return folders


def word(run: RunFolder, status: Status, reason: str | None = None) -> None:
    run.owned_by("test").write_state(RunState(status, 1, started="2026-01-01T00:00:00+00:00", reason=reason))


def test_it_waits_until_all_have_ended_and_says_each_change_once(
    runs: list[RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    word(runs[1], Status.FINISHED)
    threading.Timer(0.6, lambda: word(runs[0], Status.DIVERGED, "NaN")).start()
    mirrored: list[int] = []
    began = time.monotonic()
    assert watch(runs, mirror=mirrored.append, poll_s=0.1) == 0
    assert time.monotonic() - began > 0.5 and mirrored == []
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{runs[0].name}: running (job 7_0 starts)",
        f"{runs[1].name}: finished",
        f"{runs[0].name}: diverged (NaN)",
        "1 diverged, 1 finished",
    ]


def test_runs_without_a_result_are_named_mirrored_and_make_the_exit_code_1(
    runs: list[RunFolder], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command("squeue", "echo '7_0|FAILED|35072|sweep-1|NonZeroExitCode|'")
    word(runs[1], Status.FAILED, "ValueError: no")
    mirrored: list[int] = []
    assert watch(runs, mirror=mirrored.append, poll_s=0.1) == 1
    assert mirrored == [0, 1]
    said = capsys.readouterr().err
    assert "exit code 137" in said and "ValueError: no" in said


def test_a_job_that_slurm_does_not_know_is_looked_for_again_before_it_is_lost(
    runs: list[RunFolder], command: Command, tmp_path: Path
) -> None:
    command("squeue", "echo x >> looks; test $(wc -l < looks) = 2 || exit 0; echo '7_0|RUNNING|0|sweep-1|None|'")
    word(runs[1], Status.FINISHED)
    assert watch(runs, mirror=lambda number: None, poll_s=0.05) == 1
    assert (tmp_path / "looks").read_text().count("x") == 2 + 3
