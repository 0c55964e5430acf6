"""One run on this machine with stand-in ranks: real processes and signals, no training."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.local.lock import is_locked
from megdet.launchers.local.one_run import run_local
from megdet.planning.plan import Plan, make_plan
from megdet.runs import causes
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.state import RunState
from tests.launchers.stand_in import is_alive, wait_until, write_program


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two ranks."""
    cluster = ClusterSettings(gpus_per_node=2)
    return make_plan(Config(batch=4, bn_size=4, gpus=2, cluster=cluster, runs_dir=str(tmp_path / "runs")))


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """What a rank runs, from the body of its program."""

    return lambda body: write_program(tmp_path / "rank.py", body)


Ranks = Callable[[str], tuple[str, ...]]


def state_of(plan: Plan) -> RunState:
    state = folder_of(plan).state()
    assert state is not None
    return state


def failure_of(plan: Plan) -> dict[str, object]:
    failure: dict[str, object] = json.loads((folder_of(plan).path / "failure.json").read_text())
    return failure


def launcher_process(
    plan: Plan, program: tuple[str, ...], *, stop_grace_s: float = 20, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A launcher of its own, whose exit is the state that it came to."""
    folder = folder_of(plan).path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "asked.json").write_text(plan.to_json())
    code = (
        "import sys; from pathlib import Path; from megdet.planning.plan import Plan; "
        "from megdet.launchers.local.one_run import run_local; "
        f"plan = Plan.from_json(Path({str(folder / 'asked.json')!r}).read_text()); "
        f"print(run_local(plan, program={program!r}, stop_grace_s={stop_grace_s}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, text=True)


@pytest.mark.parametrize("outcome", ["finished", "diverged"])
def test_a_run_ends_as_its_ranks_say(outcome: str, plan: Plan, ranks: Ranks) -> None:
    assert run_local(plan, program=ranks(f"if rank == 0: state({outcome!r})")) == outcome
    assert Plan.from_json((folder_of(plan).path / "plan.json").read_text()) == plan
    assert not (folder_of(plan).path / "failure.json").exists()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit(1)"])
def test_a_rank_that_dies_once_the_result_is_recorded_has_cost_nothing(end: str, plan: Plan, ranks: Ranks) -> None:
    body = f"""
        if rank == 0:
            state("finished")
            (folder / "done").touch()
        else:
            wait_for("done")
            {end}
    """
    assert run_local(plan, program=ranks(body)) == "finished"
    state = folder_of(plan).state()
    assert state is not None and state.attempts == 1 and not (folder_of(plan).path / "failure.json").exists()


@pytest.mark.parametrize(
    ("body", "words", "how"),
    [
        ("raise ImportError('libcudart.so.12: no such file')", "libcudart.so.12: no such file", "exit code 1"),
        ("os.write(2, b'free(): invalid pointer'); os.abort()", "free(): invalid pointer", "SIGABRT"),
    ],
    ids=["before_its_log_begins", "in_native_code"],
)
def test_the_last_words_of_rank_0_come_to_the_terminal_and_into_its_failure(
    body: str, words: str, how: str, plan: Plan, ranks: Ranks, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_local(plan, program=ranks(f"if rank == 0: {body}\ntime.sleep(100)")) == "failed"
    failure = folder_of(plan).failure()
    assert failure is not None and failure.rank == 0 and words in failure.log[-1] and how in failure.reason
    assert words in capfd.readouterr().err


LOGGING_RANK = """
    import logging
    from megdet.training.ending import start_log
    from megdet.training.progress import RunProgress
    if rank == 0:
        start_log(run, 0)
        with RunProgress("a-run", steps=3, log_every=1, enabled=True) as progress:
            progress.stepped(1, epoch=0.5, loss=2.0, lr=0.1, images_per_s=3.0)
            logging.getLogger("megdet").info("logged")
        logging.getLogger("megdet").info("logged later")
        os.write(2, b"raw\\n")
        state("finished")
"""


def test_what_rank_0_says_comes_once_to_where_people_watch_and_once_into_its_log(
    plan: Plan, ranks: Ranks, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_local(plan, program=ranks(LOGGING_RANK)) == "finished"
    log = folder_of(plan).log(0).read_text()
    for said in (capfd.readouterr().err, log):
        lines = said.splitlines()
        assert [line.split(" ", 1)[-1] for line in lines if "logged" in line] == ["logged", "logged later"]
        assert lines.count("raw") == 1 and said.count("a-run step 1/3") == 1


def test_on_a_terminal_rank_0_shows_a_bar(plan: Plan, ranks: Ranks) -> None:
    ours, theirs = pty.openpty()
    launcher = launcher_process(plan, ranks(LOGGING_RANK), stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            content = os.read(ours, 1 << 16)
        except OSError:  # the last one that had it open is gone
            break
        shown += content
        if not content:
            break
    os.close(ours)
    assert launcher.communicate(timeout=60)[0].strip() == "finished"
    assert b"1/3" in shown and b"a-run step 1/3" not in shown
    assert shown.count(b"logged") == 2 and shown.count(b"raw") == 1
    log = folder_of(plan).log(0).read_text()
    assert log.count("logged") == 2 and log.count("raw") == 1 and "\x1b" not in log


def test_rank_0_goes_on_where_nobody_reads_what_it_says(plan: Plan, ranks: Ranks) -> None:
    launcher = launcher_process(plan, ranks(LOGGING_RANK))
    assert launcher.stderr is not None
    launcher.stderr.close()
    launcher.stderr = None
    assert launcher.communicate(timeout=60)[0].strip() == "finished"
    log = folder_of(plan).log(0).read_text()
    assert log.count("logged") == 2 and "Logging error" not in log and log.count("raw") == 1


def test_a_rank_that_its_guard_has_killed_hung_and_was_not_killed_from_outside(plan: Plan, ranks: Ranks) -> None:
    body = """
        if rank == 0:
            run.write_failure(Failure.of_hang(0, "rank 0 has not been heard of for 62 s", stack="", log=()))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)
    """
    plan.config.cluster.max_retries = 0
    assert run_local(plan, program=ranks(body)) == "failed"
    failure = folder_of(plan).failure()
    assert failure is not None and failure.reason == state_of(plan).reason == "rank 0 has not been heard of for 62 s"
    assert causes.cause_of(failure) is causes.HUNG


def test_each_rank_is_told_who_it_is(plan: Plan, ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    body = """
        import json
        (folder / f"env{rank}.json").write_text(json.dumps(dict(os.environ)))
        print("hello from rank", rank)
        if rank == 0: state("finished")
    """
    run_local(plan, program=ranks(body))
    folder = folder_of(plan).path
    environments = [json.loads((folder / f"env{rank}.json").read_text()) for rank in range(2)]
    for rank, environment in enumerate(environments):
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert environment["MASTER_ADDR"] == "127.0.0.1"
        assert int(environment["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)
        assert environment["MALLOC_TRIM_THRESHOLD_"] == str(8 << 30)
        assert environment["MALLOC_TOP_PAD_"] == "1", "the user's own setting stays"
    assert environments[0]["MASTER_PORT"] == environments[1]["MASTER_PORT"]
    assert "hello from rank 1" in (folder / "log-rank1.txt").read_text()


def test_a_rank_that_dies_takes_the_others_down(plan: Plan, ranks: Ranks) -> None:
    body = """
        if rank == 0:
            state("running")
            (folder / "up").touch()
            time.sleep(100)
        wait_for("up")
        print("out of ideas")
        sys.exit(1)
    """
    began = time.monotonic()
    assert run_local(plan, program=ranks(body)) == "failed"
    assert time.monotonic() - began < 20
    assert not is_alive(int((folder_of(plan).path / "pid0").read_text()))
    assert state_of(plan).status == "failed" and state_of(plan).ended is not None
    failure = failure_of(plan)
    assert failure["rank"] == 1 and "exit code 1" in str(failure["reason"])
    assert "out of ideas" in failure["log"]  # type: ignore[operator]


def test_a_rank_that_does_not_stop_is_killed(plan: Plan, ranks: Ranks) -> None:
    body = """
        if rank == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (folder / "up").touch()
            time.sleep(100)
        wait_for("up")
        sys.exit(1)
    """
    began = time.monotonic()
    assert run_local(plan, program=ranks(body), failure_grace_s=0.3) == "failed"
    assert time.monotonic() - began < 20
    assert not is_alive(int((folder_of(plan).path / "pid0").read_text()))
    assert failure_of(plan)["rank"] == 1


def test_a_killed_rank_is_named_as_the_cause_even_if_others_complain_first(plan: Plan, ranks: Ranks) -> None:
    body = """
        if rank == 1:
            (folder / "up").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        wait_for("up")
        (folder / "failure.json").write_text('{"rank": 0, "reason": "connection reset"}')
        state("failed", reason="connection reset")
        sys.exit(1)
    """
    plan.config.cluster.max_retries = 0  # the file `up` of a first attempt would be there in the next
    assert run_local(plan, program=ranks(body)) == "failed"
    assert failure_of(plan)["rank"] == 1
    assert "SIGKILL" in str(failure_of(plan)["reason"]) and "SIGKILL" in str(state_of(plan).reason)


def test_what_a_failing_rank_wrote_itself_is_kept(plan: Plan, ranks: Ranks) -> None:
    body = """
        if rank == 1:
            run.write_failure(Failure(1, "ValueError", "mine"))
            state("failed", reason="mine")
            sys.exit(1)
        time.sleep(100)
    """
    assert run_local(plan, program=ranks(body)) == "failed"
    assert (failure_of(plan)["rank"], failure_of(plan)["reason"]) == (1, "mine")
    assert state_of(plan).reason == "mine"


def test_an_attempt_that_dies_before_its_first_word_counts(plan: Plan, ranks: Ranks) -> None:
    assert run_local(plan, program=ranks("sys.exit(1)")) == "failed"
    assert state_of(plan).attempts == 1
    assert run_local(plan, program=ranks("sys.exit(1)")) == "failed"
    assert state_of(plan).attempts == 2


def test_an_old_failure_is_gone_once_a_later_attempt_succeeds(plan: Plan, ranks: Ranks) -> None:
    run_local(plan, program=ranks("sys.exit(1)"))
    assert run_local(plan, program=ranks("if rank == 0: state('finished')")) == "finished"
    assert not (folder_of(plan).path / "failure.json").exists()


def test_ranks_that_end_without_a_state_have_failed(plan: Plan, ranks: Ranks) -> None:
    assert run_local(plan, program=ranks("state('running')")) == "failed"
    assert state_of(plan).status == "failed" and "without saying" in str(failure_of(plan)["reason"])


def test_nothing_that_a_rank_started_outlives_it(plan: Plan, ranks: Ranks) -> None:
    body = """
        child = subprocess.Popen(["sleep", "100"])
        (folder / f"child{rank}").write_text(str(child.pid))
        if rank == 0: state("finished")
        os._exit(0)
    """
    assert run_local(plan, program=ranks(body)) == "finished"
    for rank in range(2):
        child = int((folder_of(plan).path / f"child{rank}").read_text())
        wait_until(lambda pid=child: not is_alive(pid), "the rank's child is gone")  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_launcher_reaches_every_rank_as_sigterm(
    number: signal.Signals, plan: Plan, ranks: Ranks
) -> None:
    launcher = launcher_process(plan, ranks("state('running') if rank == 0 else None; on_sigterm(3); time.sleep(100)"))
    folder = folder_of(plan).path
    wait_until(lambda: all((folder / f"ready{rank}").exists() for rank in range(2)), "the ranks are up")
    launcher.send_signal(number)
    output, errors = launcher.communicate(timeout=30)
    assert (output.strip(), launcher.returncode) == ("interrupted", 0), errors
    assert (folder / "stopped0").exists() and (folder / "stopped1").exists()
    assert state_of(plan).status == "interrupted"
    assert "Traceback" not in errors


def test_a_run_that_finishes_while_it_is_stopped_is_finished(plan: Plan, ranks: Ranks) -> None:
    launcher = launcher_process(plan, ranks("state('finished') if rank == 0 else None; on_sigterm(0); time.sleep(100)"))
    folder = folder_of(plan).path
    wait_until(lambda: all((folder / f"ready{rank}").exists() for rank in range(2)), "the ranks are up")
    launcher.terminate()
    assert launcher.communicate(timeout=30)[0].strip() == "finished"


def test_a_second_signal_does_not_wait_for_the_ranks(plan: Plan, ranks: Ranks) -> None:
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder / f"ready{rank}").touch()
        time.sleep(100)
    """
    launcher = launcher_process(plan, ranks(body), stop_grace_s=1000)
    folder = folder_of(plan).path
    wait_until(lambda: all((folder / f"ready{rank}").exists() for rank in range(2)), "the ranks are up")
    launcher.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    assert launcher.communicate(timeout=30)[0].strip() == "interrupted"
    assert state_of(plan).status == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_ranks_do_not_outlive_a_launcher_that_is_killed(plan: Plan, ranks: Ranks) -> None:
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / f'ready{rank}').touch(); time.sleep(100)"
    launcher = launcher_process(plan, ranks(body))
    folder = folder_of(plan).path
    wait_until(lambda: all((folder / f"ready{rank}").exists() for rank in range(2)), "the ranks are up")
    assert is_locked(RunFolder(folder))
    launcher.kill()
    launcher.communicate()
    for rank in range(2):
        pid = int((folder / f"pid{rank}").read_text())
        wait_until(lambda pid=pid: not is_alive(pid), f"rank {rank} is gone")  # type: ignore[misc]
    assert not is_locked(RunFolder(folder))


def test_a_run_is_run_by_one_launcher_at_a_time(plan: Plan, ranks: Ranks) -> None:
    folder = folder_of(plan).path
    assert not is_locked(RunFolder(folder))
    folder.mkdir(parents=True)
    assert not is_locked(RunFolder(folder)) and list(folder.iterdir()) == [], "a look leaves nothing behind"
    launcher = launcher_process(plan, ranks("on_sigterm(3); time.sleep(100)"))
    wait_until(lambda: all((folder / f"ready{rank}").exists() for rank in range(2)), "the ranks are up")
    before = (folder / "plan.json").read_text()
    with pytest.raises(UserError, match="another launcher"):
        run_local(replace(plan, commit="other"), program=ranks("on_sigterm(3); time.sleep(100)"))
    assert (folder / "plan.json").read_text() == before
    launcher.terminate()
    launcher.communicate(timeout=30)
    assert not is_locked(RunFolder(folder))
