from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from megdet import cli
from megdet.cli.runs import select_runs
from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.config.tracking import TrackingSettings
from megdet.errors import UserError
from megdet.launchers.local.lock import is_locked
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import make_plan
from megdet.runs.beats import Beat, write_beat
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.runs.fabricate import fabricate_run
from tests.runs.folders import owned
from tests.test_launch import launch
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def selected(words: list[str]) -> list[Path]:
    return [folder.path for folder in select_runs(words)]


LAUNCHER = """
import sys
from pathlib import Path
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import Plan

run_local(Plan.from_json(Path(sys.argv[1]).read_text()), program=("-c", sys.argv[2]), stop_grace_s=5)
"""
RANK = """
import os, signal, sys, time
from pathlib import Path
from megdet.runs.rank_environment import ATTEMPT
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status

folder, started = Path(sys.argv[1]).parent, "2020-01-01T00:00:00+00:00"
run = RunFolder(folder).owned_by(os.environ[ATTEMPT])

def stop(number, frame):
    run.write_state(RunState(Status.INTERRUPTED, 1, started, reason="asked to stop"))
    os._exit(3)

signal.signal(signal.SIGTERM, stop)
run.write_state(RunState(Status.RUNNING, 1, started))
log = (folder / "log-rank0.txt").open("a")
for step in range(1000):
    print(f"step {step}", file=log, flush=True)
    if (folder / "enough").exists():
        break
    time.sleep(0.05)
print("the end", file=log, flush=True)
run.write_state(RunState(Status.FINISHED, 1, started))
"""


@contextmanager
def launched(runs: Path) -> Iterator[Path]:
    """The folder of a run under way: a real launcher with a rank that counts until a file `enough` is there."""
    cluster, tracking = ClusterSettings(gpus_per_node=1), TrackingSettings(enabled=False)
    plan = make_plan(Config(gpus=1, cluster=cluster, tracking=tracking, runs_dir=str(runs)))
    (runs.parent / "plan.json").write_text(plan.to_json())
    command = [sys.executable, "-c", LAUNCHER, str(runs.parent / "plan.json"), RANK]
    launcher = subprocess.Popen(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stderr=subprocess.DEVNULL)
    folder = runs / plan.run_id
    try:
        until = time.monotonic() + 30
        while not (folder / "log-rank0.txt").exists() or not (folder / "state.json").exists():
            assert time.monotonic() < until and launcher.poll() is None
            time.sleep(0.05)
        yield folder
        launcher.wait(30)
    finally:
        launcher.terminate()
        launcher.wait()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As a launcher holds the folder of a run that is under way."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_status_lists_every_run_with_its_state_progress_and_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path, {"batch": 16}, mmAP=37.04, hours=39.5)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1, reason="loss is NaN")
    running = fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}, status="running", epochs=4)
    planned = fabricate_run(tmp_path, {"batch": 256, "bn_size": 32})
    (planned / "state.json").unlink()
    with locked(running):
        assert cli.main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith(" b")]
    cells = {name.split("-normal")[0]: cells for name, *cells in rows}
    assert cells["b16-bn16"] == ["finished", "11/11", "37.0", "39.5", "h"]
    assert cells["b64-bn0"][:2] == ["diverged", "1/11"]
    assert any(line.startswith("b64-bn0-") and line.endswith(": loss is NaN") for line in out.splitlines())
    assert cells["b32-bn32"][:2] == ["running", "4/11"]
    assert cells["b256-bn32"][:2] == ["new", "0/11"]
    assert "1 finished" in out and "1 new" in out


def test_a_running_run_that_has_gone_quiet_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_run(tmp_path, {}, status="running", epochs=1)
    then = time.time() - 3 * 3600
    write_beat(owned(folder), Beat("test", 0, step=7, phase="evaluating", progress_at=then, limit_s=600.0))
    with locked(folder):
        cli.main(["status", str(tmp_path)])
    assert "no step for 3 h: rank 0 evaluating" in capsys.readouterr().out


def test_status_shows_the_time_left_at_the_present_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_run(tmp_path, {"batch": 16}, status="running", epochs=1)
    steps_left = 10 * (118287 // 16)
    with Journal(owned(folder)) as journal:
        journal.step(118287 // 16, epoch=1.0, images_per_s=16 * steps_left / 7200)
    with locked(folder):
        cli.main(["status", str(tmp_path)])
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(" b")]
    assert row[1:] == ["running", "1/11", "3.4", "55", "min", "2", "h"]


@pytest.mark.parametrize("command", ["status", "sync", "wait", "why", "cancel", "logs"])
def test_a_folder_without_runs_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert cli.main([command, str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "no run" in said.err


def test_a_damaged_plan_is_said_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_run(tmp_path, {}, epochs=0)
    (folder / "plan.json").write_text("{")
    assert cli.main(["status", str(tmp_path)]) == 0
    assert "plan.json is damaged" in capsys.readouterr().out


def test_sync_pushes_what_was_recorded_while_the_server_was_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    runs = tmp_path / "runs"
    for seed in range(2):
        fabricate_run(runs, {"seed": seed})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with caplog.at_level(logging.WARNING):
        assert cli.main(["sync", str(runs), "--uri", down]) == 1
    assert capsys.readouterr().err.count("not pushed") == 2
    assert len([record for record in caplog.records if record.name.startswith("megdet")]) == 1
    uri = new_database(tmp_path)
    for _ in range(2):
        assert cli.main(["sync", str(runs), "--uri", uri, "--experiment", "later"]) == 0
        assert "2 runs up to date" in capsys.readouterr().out
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("later")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 2


def test_sync_goes_where_each_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabricate_run(tmp_path / "runs", {"tracking.experiment": "mine"})
    fabricate_run(tmp_path / "runs", {"seed": 1, "tracking.uri": f"sqlite:///{tmp_path}/other.db"})
    new_database(tmp_path)
    (tmp_path / "other.db").write_bytes((tmp_path / "mlflow.db").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sync"]) == 0
    for database, experiment in (("mlflow.db", "mine"), ("other.db", "megdet")):
        client = MlflowClient(f"sqlite:///{tmp_path}/{database}")
        found = client.get_experiment_by_name(experiment)
        assert found is not None and len(client.search_runs([found.experiment_id])) == 1


def test_status_of_a_failed_run_with_markup_in_its_reason_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fabricate_run(tmp_path, {}, status="failed", epochs=1)
    state = RunFolder(folder).state()
    assert state is not None
    owned(folder).write_state(RunState(Status.FAILED, 1, state.started, reason="KeyError: [/red] rank 3"))
    assert cli.main(["status", str(tmp_path)]) == 0
    assert "[/red] rank 3" in capsys.readouterr().out


def test_status_and_help_load_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    fabricate_run(tmp_path, {}, epochs=1)
    program = (
        "import contextlib, sys; from megdet import cli; cli.main(['status', sys.argv[1]])\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_wait_returns_when_a_run_is_over_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with launched(tmp_path / "runs") as folder:
        timer = threading.Timer(1.0, (folder / "enough").touch)
        timer.start()
        assert cli.main(["wait", str(folder), "--every", "0.1"]) == 0
    out = capsys.readouterr().out
    assert f"{folder.name}: running" in out and "1 finished" in out


def test_wait_fails_where_a_run_came_to_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=1)
    assert cli.main(["wait", str(tmp_path)]) == 0
    fabricate_run(tmp_path, {"batch": 32}, status="failed", epochs=1, reason="out of paper")
    assert cli.main(["wait", str(tmp_path)]) == 1
    assert "out of paper" in capsys.readouterr().err
    assert cli.main(["wait", f"{tmp_path}/b16-*"]) == 0


def test_watching_shows_a_live_table_and_ends_with_the_runs(tmp_path: Path) -> None:
    with launched(tmp_path / "runs") as folder:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "megdet.cli", "status", str(folder), "--watch", "--every", "1"]
        watching = subprocess.Popen(command, stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "160"})
        os.close(theirs)
        seen = _read_until(ours, "running")
        (folder / "enough").touch()
        seen += _read_until(ours, "finished")
        assert watching.wait(20) == 0
        os.close(ours)
    assert folder.name in seen


def test_ctrl_c_ends_the_watching_and_not_the_run(tmp_path: Path) -> None:
    with launched(tmp_path / "runs") as folder:
        command = [sys.executable, "-m", "megdet.cli", "wait", str(folder), "--every", "0.2"]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert waiting.stdout is not None and "running" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=20)
        assert "go on" in said and "Traceback" not in said
        assert is_locked(RunFolder(folder))
        (folder / "enough").touch()


def test_cancel_asks_the_launcher_of_a_local_run_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with launched(tmp_path / "runs") as folder:
        assert cli.main(["cancel", str(folder)]) == 0
    assert f"{folder.name}: cancelled" in capsys.readouterr().out
    state = RunFolder(folder).state()
    assert state is not None and (state.status, state.reason) == ("interrupted", "asked to stop")


def test_cancel_wants_to_be_told_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fabricate_run(tmp_path / "runs", {}, status="running", epochs=1)
    with locked(folder):
        assert cli.main(["cancel"]) == 2
    said = capsys.readouterr().err
    assert "--all" in said and folder.name in said
    assert cli.main(["cancel", "b16"]) == 0
    assert "1 is neither queued nor running" in capsys.readouterr().out


def test_a_job_that_cannot_be_cancelled_is_said_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fabricate_run(tmp_path, {}, status="running", epochs=1)
    Submission("7", "7", "megdet-x", "2026-11-20T10:00:00+00:00", str(tmp_path / "7.log"), "", "").write(
        RunFolder(folder)
    )
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm here
    assert cli.main(["cancel", str(folder)]) == 1
    assert "job 7 was not cancelled" in capsys.readouterr().err
    submission = Submission.read(RunFolder(folder))
    assert submission is not None and submission.cancelled is None


def test_logs_follow_a_run_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with launched(tmp_path / "runs") as folder:
        timer = threading.Timer(0.5, (folder / "enough").touch)
        timer.start()
        assert cli.main(["logs", str(folder), "-f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"step {n}" for n in range(len(lines) - 1)), "the end"]


def test_logs_are_of_one_run_and_one_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = fabricate_run(tmp_path, {"seed": 0})
    other = fabricate_run(tmp_path, {"seed": 1})
    (one / "log-rank3.txt").write_text("".join(f"line {n}\n" for n in range(100)))
    assert cli.main(["logs", str(one), "--rank", "3", "-n", "2"]) == 0
    assert capsys.readouterr().out == "line 98\nline 99\n"
    assert cli.main(["logs", str(one)]) == 2
    assert "log-rank3.txt" in capsys.readouterr().err
    assert cli.main(["logs", str(tmp_path / "b16")]) == 2
    said = capsys.readouterr().err
    assert one.name in said and other.name in said
    assert cli.main(["logs", str(one), "--job"]) == 2
    assert "leave --job out" in capsys.readouterr().err
    (tmp_path / "7_0.log").write_text("srun: error: n1\n")
    log = str(tmp_path / "7_0.log")
    Submission("7_0", "7", "megdet-x", "2026-11-20T10:00:00+00:00", log, "", "").write(RunFolder(one))
    assert cli.main(["logs", str(one), "--job"]) == 0
    assert capsys.readouterr().out == "srun: error: n1\n"


def test_runs_are_named_by_name_beginning_pattern_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = [fabricate_run(Path("runs"), {"batch": 16, "seed": seed}) for seed in (0, 1)]
    large = fabricate_run(Path("runs"), {"batch": 256})
    assert selected([]) == selected(["runs"]) == sorted([*small, large])
    assert selected(["b256"]) == selected([large.name]) == selected([str(large)]) == [large]
    assert selected(["b16-*"]) == sorted(small) and selected(["*-s1-*"]) == [small[1]]
    assert selected(["b256", "b256-*"]) == [large]
    assert selected([f"{tmp_path}/runs/b256"]) == [tmp_path / large]
    with pytest.raises(UserError, match=f"b256-bn16-norml.*{large.name}"):
        select_runs(["b256-bn16-norml-s0-00000000"])


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_help_of_each_command_explains_its_options_and_its_examples_are_commands(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    usage = out.partition("\n\n")[0]
    assert ended.value.code == 0 and ("RUN is a run's name" in out) == ("RUN" in usage)
    assert ("RUN" in usage) == (command not in ("cluster", "shapes", "stability"))
    options = re.findall(r"^  (-.*)$", re.sub(r"\n {9,}", "  ", out), re.MULTILINE)
    assert len(options) > 1 and all("  " in option for option in options), "an option without a word about it"
    for example in re.findall(r"^  (megdet .*)$", out, re.MULTILINE):
        can_be_parsed(example)


def test_help_shows_every_command_and_its_examples_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    listed = [match for match in re.findall(r"^    (\w+)  +\w", out, re.MULTILINE)]
    assert listed == [*cli.DOORS, *cli.COMMANDS]
    examples = re.findall(r"^  (megdet .*)$", out, re.MULTILINE)
    assert {example.split()[1] for example in examples} >= {"launch", "status", "wait"}
    for example in examples:
        can_be_parsed(example)


def can_be_parsed(example: str) -> None:
    """Fail where a part of a shell line, explained after two blanks, is no command with options that it has."""
    for part in re.split(r"  +", example)[0].split(" && "):
        megdet, command, *arguments = shlex.split(part)
        assert megdet == "megdet"
        if command in cli.DOORS:
            assert command != "launch" or all("=" in word or word == "-m" for word in arguments), part
        else:
            cli._parser().parse_args([command, *arguments])  # exits where it does not


@pytest.mark.parametrize("door", list(cli.DOORS))
def test_a_program_that_is_a_subcommand_is_called_so_in_its_help(door: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main([door, "--help"]) == 0
    except SystemExit as ended:
        assert not ended.code
    out = capsys.readouterr().out
    assert f"megdet {door} " in out and "python " not in out.replace("`python -m", "")


def test_launch_is_the_same_door_as_launch_py_with_all_its_arguments(tmp_path: Path) -> None:
    words = ["-m", "batch=16,64", "bn_size=16", "cluster=paper", "sweep.dry_run=true"]
    command = [sys.executable, "-m", "megdet.cli", "launch", *words]
    by_subcommand = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert by_subcommand.returncode == 0 and "2 new" in by_subcommand.stdout, by_subcommand.stderr
    assert by_subcommand.stdout == launch(tmp_path, *words, COLUMNS="80").stdout


def test_the_shell_is_told_commands_and_what_launch_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    answer = replace(cli.DOORS["launch"], run=lambda words: asked.append(os.environ["COMP_LINE"]) or 0)
    monkeypatch.setitem(cli.DOORS, "launch", answer)
    for line in ("megdet ", "megdet st", "megdet status ", "megdet launch model=t", "megdet launch ", "megdet launch"):
        monkeypatch.setenv("COMP_LINE", line)
        assert cli.main(["-sc", "query=bash"]) == 0
    assert asked == ["megdet model=t", "megdet ", "megdet "]
    assert capsys.readouterr().out.split() == [*cli.DOORS, *cli.COMMANDS] * 3


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert re.fullmatch(r"megdet \d+\.\d+\.\d+(\.dev\d+)?\n", capsys.readouterr().out)


def _read_until(terminal: int, word: str) -> str:
    """What a terminal shows until `word` has come."""
    seen, until = "", time.monotonic() + 20
    while word not in seen:
        assert time.monotonic() < until, seen
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
    return seen


def test_ctrl_c_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(parsed: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("megdet.cli.du.run", stopped)
    assert cli.main(["du"]) == 3
    assert capsys.readouterr().err == "megdet du: interrupted\n"
