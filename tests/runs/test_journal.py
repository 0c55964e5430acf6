from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.runs.folder import RunFolder, run_folders
from megdet.runs.journal import Journal, read_journal
from megdet.runs.run_files import JOURNAL, OWNER
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.folders import owned


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    before = time.time()
    with Journal(owned(tmp_path)) as journal:
        journal.event("started", step=0, attempt=1)
        journal.step(10, epoch=0.5, lr=0.02, loss=1.25)
        journal.epoch(1, step=20, mmAP=12.5, AP_large=None)
    started, step, epoch = read_journal(RunFolder(tmp_path))
    assert started["kind"] == "event" and started["event"] == "started" and started["attempt"] == 1
    assert (step["kind"], step["step"], step["epoch"], step["loss"]) == ("step", 10, 0.5, 1.25)
    assert (epoch["kind"], epoch["epoch"], epoch["step"], epoch["mmAP"]) == ("epoch", 1, 20, 12.5)
    assert epoch["AP_large"] is None
    assert before - 0.01 <= started["time"] <= epoch["time"] <= time.time() + 0.01


def test_every_line_is_on_disk_before_the_call_returns_even_if_the_process_is_killed(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal

Journal(RunFolder(Path(sys.argv[1])).claim("the writer")).step(1, epoch=0.1, loss=2.0)
print("written", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [line["step"] for line in read_journal(RunFolder(tmp_path))] == [1]


@pytest.mark.parametrize("keep", [1, 5, 40, -1])
def test_a_torn_last_line_is_not_read_and_is_cut_by_the_next_writer(tmp_path: Path, keep: int) -> None:
    with Journal(owned(tmp_path)) as journal:
        journal.step(1, epoch=0.1, loss=2.0)
        journal.step(2, epoch=0.2, loss=1.0)
    path = tmp_path / JOURNAL
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + second[:keep])
    assert [line["step"] for line in read_journal(RunFolder(tmp_path))] == [1]
    with Journal(owned(tmp_path)) as journal:
        journal.step(2, epoch=0.2, loss=1.0)
    assert [line["step"] for line in read_journal(RunFolder(tmp_path))] == [1, 2]


def test_nan_and_infinity_leave_strict_json_with_the_key_kept(tmp_path: Path) -> None:
    with Journal(owned(tmp_path)) as journal:
        journal.step(1, epoch=0.1, loss=math.nan, grad_norm=math.inf)
        journal.event("diverged", step=1, last_losses=[1.0, -math.inf])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    step, event = (json.loads(line, parse_constant=refuse) for line in (tmp_path / JOURNAL).read_text().splitlines())
    assert step["loss"] is None and step["grad_norm"] is None
    assert event["last_losses"] == [1.0, None]


def test_a_resumed_run_forgets_what_lies_beyond_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    journal = Journal(owned(tmp_path))
    for step in range(1, 7):
        journal.step(step, epoch=step / 4, loss=1.0 / step)
    journal.epoch(1, step=4, mmAP=1.0)
    journal.event("interrupted", step=6)
    journal.drop_after(4)
    journal.event("resumed", step=4)
    journal.step(5, epoch=1.25, loss=0.5)
    journal.close()
    lines = read_journal(RunFolder(tmp_path))
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4, 4, 5]
    assert [line["kind"] for line in lines[4:]] == ["epoch", "event", "step"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOURNAL, OWNER]


def test_a_journal_damaged_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    with Journal(owned(tmp_path)) as journal:
        journal.step(1, epoch=0.1)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"kind": "st\n{"kind": "step", "step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_journal(RunFolder(tmp_path))


def test_a_run_that_has_not_started_has_an_empty_journal_and_no_state(tmp_path: Path) -> None:
    assert read_journal(RunFolder(tmp_path)) == []
    assert RunFolder(tmp_path).state() is None


def test_the_state_is_read_back_and_replaced_whole(tmp_path: Path) -> None:
    running = RunState(Status.RUNNING, attempts=1, started="2026-11-20T10:00:00+00:00")
    owned(tmp_path).write_state(running)
    inode = (tmp_path / "state.json").stat().st_ino
    failed = RunState(
        Status.FAILED, attempts=2, started=running.started, ended="2026-11-20T11:00:00+00:00",
        train_s=12.5, eval_s=2.0, step=40, reason="rank 1: no space left on device",
    )  # fmt: skip
    owned(tmp_path).write_state(failed)
    assert RunFolder(tmp_path).state() == failed
    # a new file renamed over the old one, never the old one written into
    assert (tmp_path / "state.json").stat().st_ino != inode
    assert sorted(path.name for path in tmp_path.iterdir()) == [OWNER, "state.json"]


def test_the_lines_of_one_kind_are_read_without_the_others(tmp_path: Path) -> None:
    with Journal(owned(tmp_path)) as journal:
        journal.step(1, epoch=1.0, loss=2.0)
        journal.epoch(1, step=1, mmAP=3.0)
        journal.event("finished", step=1)
    everything = read_journal(RunFolder(tmp_path))
    assert len(everything) == 3
    for kind in ("step", "epoch", "event"):
        assert (
            read_journal(RunFolder(tmp_path), kinds=[kind])
            == [line for line in everything if line["kind"] == kind]
            != []
        )


@pytest.mark.parametrize(
    "damaged",
    ["", '{"kind": "spoch", "epoch": 2, "step": 2}', "\0" * 40, '{"epoch": 2, "mmAP": 4.0}', "[]"],
    ids=["empty", "one_letter", "zeros", "no_kind", "a_list"],
)
def test_a_line_that_begins_as_none_of_the_kinds_is_damaged_whichever_are_read(tmp_path: Path, damaged: str) -> None:
    with Journal(owned(tmp_path)) as journal:
        journal.epoch(1, step=1, mmAP=3.0)
        journal.epoch(2, step=2, mmAP=4.0)
    path = tmp_path / JOURNAL
    first, _ = path.read_text().splitlines()
    path.write_text(f"{first}\n{damaged}\n")
    for kinds in (["epoch"], ["event"], ["step", "epoch", "event"]):
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is damaged"):
            read_journal(RunFolder(tmp_path), kinds=kinds)


def test_a_line_with_a_second_kind_is_damaged(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"kind": "epoch", "kind": "event", "event": "started", "step": 0, "time": 1.0}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
        read_journal(RunFolder(tmp_path))


def test_a_file_in_place_of_a_runs_folder_is_said_to_be_none_and_a_database_how_it_is_named(tmp_path: Path) -> None:
    for name, way_out in (("mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"), ("notes.txt", "name a folder of runs")):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=f"is no folder; .*{way_out}$"):
            run_folders(tmp_path / name)
