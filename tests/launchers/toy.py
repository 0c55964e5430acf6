"""A third launcher, small enough to be read in one go: "Add a launcher" in CONTRIBUTING.md explains it.

It starts each run as a process of its own in the background, as `nohup` would, and returns at once.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.launchers.interface import Job, JobFinder, Launcher, Start
from megdet.launchers.rank import RANK_PROGRAM, rank_environment
from megdet.launchers.settle import settle
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.causes import Cause
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.job_environment import JobEnvironment, NoJob
from megdet.runs.status import Stand, Status
from megdet.runs.times import now
from tests.launchers.stand_in import is_alive

NAME = "toy"
NAMES: tuple[str, ...] = ("background",)


def make_launcher(name: str, config: Config) -> Launcher:
    return ToyLauncher()


def make_job_finder() -> JobFinder:
    return ToyJobs()


def make_job_environment(folder: RunFolder) -> JobEnvironment:
    return NoJob()


class ToyLauncher:
    """What starts runs."""

    def __init__(self, program: Sequence[str] = RANK_PROGRAM) -> None:
        self._program = program

    def resolve(self, config: Config) -> Config:
        return config

    def check(self, plan: Plan) -> None:
        if plan.layout.nodes > 1:
            raise UserError(f"{plan.run_id} needs {plan.layout.nodes} nodes; hydra/launcher=background has one")

    def expected_start(self, plan: Plan) -> Start:
        self.check(plan)
        return Start(datetime.now().astimezone())

    def remarks(self, plans: Sequence[Plan]) -> Sequence[str]:
        return ()

    def preview(self, plans: Sequence[Plan], *, canaries: Sequence[Canary] = ()) -> str:
        return ""

    def run(
        self,
        plans: Sequence[Plan],
        under_way: Sequence[Plan],
        *,
        mirror: Callable[[Plan], None],
        canaries: Sequence[Canary] = (),
    ) -> ExitCode:
        if canaries:
            raise UserError("sweep.canary=true: hydra/launcher=background holds no run back; leave it out")
        for plan in plans:
            folder = folder_of(plan)
            job = ToyJobs().find([folder]).get(folder)
            if job and job.stand().status.is_live:
                continue  # another launcher was faster
            owned = folder.claim(f"{NAME}-{secrets.token_hex(4)}")
            owned.write_plan(plan.to_json())
            owned.forget_failure()
            with folder.launcher_log.open("ab") as log:
                host = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(folder.path), str(owned.owner), *self._program],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            folder.note_submission(NAME, {"pid": host.pid})
        return ExitCode.OK


@dataclass(frozen=True)
class ToyJob:
    """A started run, as the launcher knows it."""

    folder: RunFolder
    pid: int

    def stand(self) -> Stand:
        alive, state = is_alive(self.pid), self.folder.state()
        if state and state.status.is_result:
            return Stand(state.status, state.reason or "")
        if alive:
            return Stand(Status.RUNNING, f"process {self.pid}")
        if state is None or state.status == Status.RUNNING:
            return Stand(Status.LOST, f"process {self.pid} is gone")
        return Stand(state.status, state.reason or "")

    def cancel(self) -> None:
        try:
            os.kill(self.pid, signal.SIGTERM)
        except ProcessLookupError:
            raise UserError(f"process {self.pid} is gone") from None

    @property
    def log(self) -> Path | None:
        return self.folder.launcher_log

    def cause(self) -> Cause | None:
        return None


class ToyJobs:
    """Finds the jobs of runs."""

    def find(self, folders: Sequence[RunFolder]) -> dict[RunFolder, Job]:
        submissions = {folder: folder.submission() for folder in folders}
        return {folder: ToyJob(folder, one["pid"]) for folder, one in submissions.items() if one}


def host(folder: RunFolder, program: Sequence[str]) -> None:
    """What runs in the background: the ranks of one run, and what became of them."""
    before, started, ranks = folder.state(), now(), folder.read_plan()["layout"]["gpus"]
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    processes = [
        subprocess.Popen(
            [sys.executable, *program, str(folder.plan)],
            env=rank_environment(
                os.environ, attempt=str(folder.owner), rank=rank, local_rank=rank, ranks=ranks, ranks_per_node=ranks,
                address="127.0.0.1", port=20_000 + os.getpid() % 10_000, threads=1,
            ),
            stdout=folder.log(rank).open("ab") if rank else None,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    first_dead: int | None = None
    while None in (codes := [process.poll() for process in processes]):
        dead = [rank for rank, code in enumerate(codes) if code]
        first_dead = dead[0] if dead and first_dead is None else first_dead
        if dead or stopped:
            for process in processes:
                process.terminate()
        time.sleep(0.05)
    settle(
        folder,
        before=before,
        started=started,
        codes=[code or 0 for code in codes],
        first_dead=first_dead,
        stopped=bool(stopped),
    )


if __name__ == "__main__":
    host(RunFolder(Path(sys.argv[1])).owned_by(sys.argv[2]), sys.argv[3:])
