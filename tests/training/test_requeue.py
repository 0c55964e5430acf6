"""A real rank in a job: told to make room it writes a checkpoint, requeues its job, and later goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from tests.launchers.slurm.submitted import submit
from tests.training.test_run import config_of, folder_of, start


@pytest.fixture
def plan(tmp_path: Path, shapes_root: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A run that job 7 was submitted for, and this process as that job; scontrol notes what it is asked."""
    plan = make_plan(config_of(tmp_path, shapes_root))
    folder = folder_of(plan)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(plan.to_json())
    submit(RunFolder(folder))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    return plan


def wait_for_step(process: subprocess.Popen[str], plan: Plan, step: int) -> None:
    """Patient: loading torch takes a busy host a minute."""
    until = time.monotonic() + 120
    while not any(line["kind"] == "step" and line["step"] >= step for line in read_journal(RunFolder(folder_of(plan)))):
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > until:
            process.kill()
            raise AssertionError(f"step {step} was not reached")
        time.sleep(0.05)


def events_of(plan: Plan) -> list[str]:
    """But for edits of the source, which somebody may make while the tests run."""
    events = [line["event"] for line in read_journal(RunFolder(folder_of(plan))) if line["kind"] == "event"]
    return [event for event in events if event != "edited_while_queued"]


def test_a_rank_that_is_to_make_room_requeues_its_job_and_the_run_goes_on(plan: Plan, tmp_path: Path) -> None:
    process = start(plan)
    wait_for_step(process, plan, 2)
    process.send_signal(signal.SIGUSR2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    state = RunFolder(folder_of(plan)).state()
    assert state is not None and (state.status, state.reason) == ("interrupted", "asked to make room")
    assert events_of(plan) == ["started", "requeued", "interrupted"]

    again = start(plan)
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    state = RunFolder(folder_of(plan)).state()
    assert state is not None and (state.status, state.attempts) == ("finished", 2)
    assert events_of(plan) == ["started", "requeued", "interrupted", "resumed", "finished"]


def test_a_rank_that_is_told_to_stop_for_good_does_not_come_back(plan: Plan, tmp_path: Path) -> None:
    process = start(plan)
    wait_for_step(process, plan, 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert not (tmp_path / "asked").exists() and "requeued" not in events_of(plan)


def test_what_was_edited_while_the_run_was_queued_is_in_its_journal(plan: Plan) -> None:
    folder = folder_of(plan)
    submission = Submission.read(RunFolder(folder))
    assert submission is not None
    replace(submission, code_sha256="another", plan_sha256="another").write(RunFolder(folder))
    process = start(plan)
    wait_for_step(process, plan, 1)
    process.terminate()
    process.communicate(timeout=120)
    edited = [line["what"] for line in read_journal(RunFolder(folder)) if line.get("event") == "edited_while_queued"]
    assert edited == ["plan", "code"]
