"""Submits runs: freezes their plans, makes arrays of them, and sees to it that none is lost and none comes twice."""

from __future__ import annotations

import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.jobs import stands_of
from megdet.launchers.slurm.arrays import MANY, arrays_behind
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.dispatch import NO_SLURM, SubmitLimit, dispatch
from megdet.launchers.slurm.intents import declare, fulfil, reconcile, submissions_folder, submitting, withdraw
from megdet.launchers.slurm.job_states import SlurmQueue
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.resources import Array
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.data_places import portable
from megdet.runs.folder import folder_of, run_folder


class Submitter:
    """Submits the runs of a launcher, whose ranks run `program`."""

    def __init__(self, client: SlurmClient, program: Sequence[str], pauses_s: Sequence[float]) -> None:
        """`pauses_s`: between attempts at sbatch of a busy controller."""
        self._client, self._program, self._pauses_s = client, program, pauses_s
        self._queue = SlurmQueue(client)

    def submit(
        self,
        plans: Sequence[Plan],
        say: Callable[[str], None],
        *,
        canaries: Sequence[Canary] = (),
        most_at_once: int | None = None,
    ) -> tuple[list[Plan], str]:
        """Freeze plans and submit them in as few arrays as can be; those that Slurm does not take now, and its words.

        `most_at_once`: elements that an array may have, as far as Slurm says so beforehand; `say` is called with a line
        on each array as soon as Slurm has it. An array that is too large for a limit is halved. Raises UserError where
        Slurm does not take one for another reason; what was submitted before stays.
        """
        runs_dir = runs_dir_of(plans)
        submitted: set[str] = set()
        with submitting(runs_dir):
            self._reconcile(runs_dir)
            stamp = f"megdet-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            most = min(self._max_array_size, most_at_once or MANY)
            left = deque(arrays_behind(_not_under_way(plans), canaries, max_array_size=most))
            for number in count(1):
                if not left:
                    break
                array = left.popleft()
                after = _jobs_of(array.sources, runs_dir, submitted)
                try:
                    job = self._submit(replace(array, after=after), submissions_folder(runs_dir) / f"{stamp}-{number}")
                except SubmitLimit as refused:
                    half = len(array.plans) // 2
                    if not half:
                        return [plan for one in (array, *left) for plan in one.plans], str(refused)
                    left.extendleft(replace(array, plans=part) for part in (array.plans[half:], array.plans[:half]))
                    continue
                submitted |= {plan.run_id for plan in array.plans}
                awaited = [*after, *(f"canary {job}" for job in array.canary_jobs)]
                wait = f", after {', '.join(awaited)}" if awaited else ""
                say(f"job {job}: {_counted(array)} on {array.resources.describe()}{wait}")
        return [], ""

    @cached_property
    def _max_array_size(self) -> int:
        try:
            return self._client.max_array_size()
        except SlurmError as error:
            raise UserError(NO_SLURM.format(f"Slurm does not answer ({error})")) from None

    def _reconcile(self, runs_dir: Path) -> None:
        """Take over what a launcher that died has left, if there is anything and Slurm answers."""
        try:
            for line in reconcile(runs_dir, self._queue.named):
                print(line, file=sys.stderr, flush=True)
        except SlurmError as error:
            raise UserError(
                f"a launcher died while it submitted, and Slurm does not say which of its jobs there are ({error}); "
                "try again when it answers"
            ) from None

    def _submit(self, array: Array, folder: Path) -> str:
        runs = [folder_of(plan) for plan in array.plans]
        for plan, run in zip(array.plans, runs, strict=True):
            owned = run.claim(folder.name)
            owned.write_plan(portable(plan, owned).to_json())
            owned.forget_failure()
        payload = Payload.of(folder, runs, program=self._program, canaries=array.canaries)
        declare(payload)
        try:
            job = dispatch(array, payload, already=lambda: self._job_named(folder.name), pauses_s=self._pauses_s)
        except UserError:
            withdraw(folder)
            raise
        except SlurmError as error:
            raise UserError(
                f"it is not known whether Slurm has taken {len(runs)} of the runs ({error}); launch again when it "
                "answers: what it has taken is found by its name"
            ) from None
        fulfil(payload, job)
        return job

    def _job_named(self, name: str) -> str | None:
        jobs = self._queue.named(name)
        return jobs[0].partition("_")[0] if jobs else None


def _counted(array: Array) -> str:
    kind = "canary" if folder_of(array.plans[0]).is_canary else "run"
    if len(array.plans) == 1:
        return f"1 {kind}"
    return f"{len(array.plans)} {'canaries' if kind == 'canary' else 'runs'}"


def _jobs_of(runs: Sequence[str], runs_dir: Path, submitted: Set[str]) -> tuple[str, ...]:
    """The jobs of runs that were `submitted` just now, or are under way."""
    folders = [run_folder(runs_dir, run) for run in runs]
    stands = stands_of([folder for folder in folders if folder.name not in submitted])
    live = [folder for folder in folders if folder.name in submitted or stands[folder].status.is_live]
    found = [Submission.read(folder) for folder in live]
    return tuple(submission.job for submission in found if submission)


def _not_under_way(plans: Sequence[Plan]) -> list[Plan]:
    """Looked at again under the lock: another launcher may have submitted some since they were planned."""
    stands = stands_of([folder_of(plan) for plan in plans])
    return [plan for plan in plans if not stands[folder_of(plan)].status.is_live]


def runs_dir_of(plans: Sequence[Plan]) -> Path:
    """The folder that all of a launcher's runs are in."""
    return Path(plans[0].config.runs_dir)
