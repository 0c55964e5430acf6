"""What every launcher does, whatever it starts runs with. tests/slurm runs these tests on a real Slurm too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.jobs import Jobs, job_of, stands_of
from megdet.launchers.named import LAUNCHERS
from megdet.planning.plan import Plan, make_plan
from megdet.runs import causes
from megdet.runs.folder import LostOwnership, RunFolder, folder_of
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers import fake_slurm, toy
from tests.launchers.stand_in import is_alive, wait_until, write_program
from tests.runs.folders import stand_of

WORKING = """
if rank == 0: state("running")
on_sigterm(3, lambda: again("interrupted", reason="asked to stop") if rank == 0 else None)
wait_for("enough")
if rank == 0: again("finished")
"""
"""Ranks that are at work until a file `enough` is there, and stop where they are asked to."""


@dataclass
class Place:
    """One launcher, and what its user has in the environment."""

    name: str
    folder: Path
    environment: Mapping[str, str]
    timeout_s: float = 60.0
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def plan(self, seed: int = 0) -> Plan:
        """Two ranks on one node."""
        cluster = ClusterSettings(name="paper", gpus_per_node=2, cpus_per_gpu=1, time_min=10, signal_delay_s=10)
        runs = str(self.folder / "runs")
        return make_plan(Config(batch=4, bn_size=4, gpus=2, seed=seed, cluster=cluster, runs_dir=runs))

    def start(self, body: str, *plans: Plan) -> subprocess.Popen[str]:
        """A launcher of its own, whose ranks do what `body` says."""
        files = []
        for plan in plans:
            files.append(self.folder / f"{plan.run_id}.json")
            files[-1].write_text(plan.to_json())
        program = write_program(self.folder / "rank.py", body)
        words = [sys.executable, "-m", "tests.launchers.places", self.name, *program, *map(str, files)]
        launcher = subprocess.Popen(
            words, env={**os.environ, **self.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(launcher)
        return launcher

    def wait_for(self, folder: RunFolder, *statuses: Status) -> Status:
        what = f"{folder.name}: {' or '.join(statuses)}"
        wait_until(lambda: stand_of(folder).status in statuses, what, timeout_s=self.timeout_s)
        return stand_of(folder).status

    def run(self, body: str) -> RunFolder:
        """A run that came to its end."""
        plan = self.plan()
        self.start(body, plan)
        self.wait_for(folder_of(plan), Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.INTERRUPTED)
        return folder_of(plan)

    def at_work(self, plan: Plan, attempts: int = 1) -> RunFolder:
        """A run whose ranks are all at work, in that attempt."""
        folder = folder_of(plan)
        for rank in range(2):
            (folder.path / f"ready{rank}").unlink(missing_ok=True)
        self.start(WORKING, plan)
        ready = [folder.path / f"ready{rank}" for rank in range(2)]
        wait_until(lambda: all(path.exists() for path in ready), "the ranks are at work", timeout_s=self.timeout_s)
        wait_until(lambda: state_of(folder).attempts == attempts, f"attempt {attempts}")
        self.wait_for(folder, Status.RUNNING)
        return folder


@pytest.fixture(params=["local", "local_parallel", "slurm", "toy"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    if request.param == "slurm":
        environment |= fake_slurm.install(tmp_path / "slurm")
    yield from ready(Place(request.param, tmp_path, environment), monkeypatch)


def ready(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """This process asks about the place's runs; when the test is over, none of them is left."""
    for key, value in place.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setitem(LAUNCHERS, toy.NAME, toy)
    yield place
    folders = [RunFolder(path) for path in (place.folder / "runs").glob("b*")]
    for folder, stand in stands_of(folders).items():
        job = job_of(folder)
        if stand.status.is_live and job:
            job.cancel()
    for launcher in place.started:
        launcher.communicate(timeout=60)


def state_of(folder: RunFolder) -> RunState:
    state = folder.state()
    assert state is not None
    return state


def test_a_run_is_new_then_at_work_then_finished(place: Place) -> None:
    plan = place.plan()
    assert stand_of(folder_of(plan)).status == Status.NEW and job_of(folder_of(plan)) is None
    folder = place.at_work(plan)
    job = job_of(folder)
    assert job is not None and job.stand().status == Status.RUNNING and job.cause() is None
    assert Plan.from_json(folder.plan.read_text()) == plan
    (folder.path / "enough").touch()
    assert place.wait_for(folder, Status.FINISHED) == Status.FINISHED
    assert not folder.failure_file.exists()
    assert place.started[0].wait(timeout=60) == ExitCode.OK


def test_ranks_know_who_they_are_and_whose_the_folder_is(place: Place) -> None:
    body = """
        import json
        (folder / f"env{rank}.json").write_text(json.dumps(dict(os.environ)))
        print("hello from rank", rank, flush=True)
        wait_for("env0.json"), wait_for("env1.json")
        if rank == 0: state("finished")
    """
    folder = place.run(body)
    told = [json.loads((folder.path / f"env{rank}.json").read_text()) for rank in range(2)]
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
    assert [tuple(environment[name] for name in names) for environment in told] == [
        ("0", "0", "2", "2", "1"), ("1", "1", "2", "2", "1"),
    ]  # fmt: skip
    for name in ("MASTER_ADDR", "MASTER_PORT", "MEGDET_ATTEMPT"):
        assert told[0][name] == told[1][name]
    assert told[0]["MEGDET_ATTEMPT"] == folder.current_owner()
    assert folder.last_log_lines(1)[-1] == "hello from rank 1"


def test_a_rank_that_fails_ends_the_others_and_is_quoted(place: Place) -> None:
    body = """
        if rank == 0:
            state("running")
            time.sleep(100)
        wait_for("state.json")
        try:
            open("no/such/file")
        except OSError as error:
            reason = f"FileNotFoundError: {error}"
            if run.write_first_failure(Failure.of_exception(error, rank=rank, reason=reason, log=("step 20",))):
                again("failed", reason=reason)
        sys.exit(1)
    """
    folder = place.run(body)
    assert stand_of(folder).status == Status.FAILED and "no/such/file" in stand_of(folder).why
    diagnosis = Jobs().look_at([folder]).diagnosis(folder)
    assert diagnosis is not None and diagnosis.cause is causes.CONFIG_OR_DATA
    assert (diagnosis.rank, diagnosis.log) == (1, ("step 20",))
    assert not is_alive(int((folder.path / "pid0").read_text()))
    (launcher,) = place.started
    assert launcher.wait(timeout=60) == (ExitCode.RUN_FAILED if place.name.startswith("local") else ExitCode.OK)


def test_a_rank_that_is_killed_is_the_cause_of_the_end(place: Place) -> None:
    body = """
        if rank == 1:
            wait_for("ready0")
            os.kill(os.getpid(), signal.SIGKILL)
        state("running")
        on_sigterm(1)
        time.sleep(100)
    """
    folder = place.run(body)
    failure = folder.failure()
    assert stand_of(folder).status == Status.FAILED and state_of(folder).ended is not None
    assert failure is not None and not failure.says_why and "SIGKILL" in failure.reason
    diagnosis = Jobs().look_at([folder]).diagnosis(folder)
    assert diagnosis is not None and diagnosis.cause is causes.KILLED


def test_ranks_that_end_without_a_word_have_failed(place: Place) -> None:
    folder = place.run("state('running') if rank == 0 else wait_for('state.json'); sys.exit(1)")
    failure = folder.failure()
    assert (stand_of(folder).status, state_of(folder).attempts) == (Status.FAILED, 1)
    assert failure is not None and not failure.says_why and failure.reason == stand_of(folder).why


def test_a_cancelled_run_stops_and_goes_on_when_it_is_launched_again(place: Place) -> None:
    plan = place.plan()
    folder = place.at_work(plan)
    job = job_of(folder)
    assert job is not None
    job.cancel()
    assert place.wait_for(folder, Status.INTERRUPTED, Status.CANCELLED).can_go_on
    wait_until(lambda: state_of(folder).status == Status.INTERRUPTED, "the ranks have said so")
    assert (folder.path / "stopped0").exists() and (folder.path / "stopped1").exists()
    assert Jobs().look_at([folder]).diagnosis(folder) is None, "nothing went wrong"
    place.started[0].wait(timeout=60)

    place.at_work(plan, attempts=2)
    (folder.path / "enough").touch()
    place.wait_for(folder, Status.FINISHED)
    assert state_of(folder).attempts == 2


def test_a_run_that_is_under_way_is_not_started_a_second_time(place: Place) -> None:
    plan = place.plan()
    folder = place.at_work(plan)
    owner = folder.current_owner()
    second = place.start(WORKING, replace(plan, commit="other"))
    second.wait(timeout=60)
    assert folder.current_owner() == owner and state_of(folder).attempts == 1
    assert Plan.from_json(folder.plan.read_text()) == plan
    (folder.path / "enough").touch()
    place.wait_for(folder, Status.FINISHED)


def test_an_attempt_that_was_replaced_cannot_write_any_more(place: Place) -> None:
    plan = place.plan()
    folder = place.at_work(plan)
    former = folder.owned_by(str(folder.current_owner()))
    former.check_owner()
    job = job_of(folder)
    assert job is not None
    job.cancel()
    place.wait_for(folder, Status.INTERRUPTED, Status.CANCELLED)
    place.started[0].wait(timeout=60)
    place.at_work(plan, attempts=2)
    with pytest.raises(LostOwnership):
        former.write_state(state_of(folder))
    (folder.path / "enough").touch()
    place.wait_for(folder, Status.FINISHED)


def test_several_runs_of_one_launch_each_have_their_job(place: Place) -> None:
    plans = [place.plan(seed) for seed in (0, 1)]
    place.start("print('hello'); state('finished') if rank == 0 else None", *plans)
    folders = [folder_of(plan) for plan in plans]
    for folder in folders:
        place.wait_for(folder, Status.FINISHED)
    jobs = [job_of(folder) for folder in folders]
    assert all(job is not None for job in jobs) and jobs[0] != jobs[1]
    logs = [job.log for job in jobs if job and job.log]
    assert all("hello" in log.read_text() for log in logs)
    assert (len(logs) == 2) == (place.name != "local"), "one run after the other has the terminal instead"
