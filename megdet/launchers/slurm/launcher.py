"""Runs on a Slurm cluster: those with equal needs become job arrays, and every run knows its job.

The launcher may die at any moment; jobs go on.
"""

from __future__ import annotations

import copy
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.launchers.canaries import announced, make_way, tell
from megdet.launchers.interface import Start
from megdet.launchers.jobs import stands_of
from megdet.launchers.rank import RANK_PROGRAM
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.discovery import Cluster, discover
from megdet.launchers.slurm.dispatch import NO_SLURM, PAUSES_S, SubmitLimit, dispatch, script_of
from megdet.launchers.slurm.fitting import check_fits, fit
from megdet.launchers.slurm.intents import declare, fulfil, reconcile, submissions_folder, submitting, withdraw
from megdet.launchers.slurm.job_states import SlurmQueue
from megdet.launchers.slurm.let_go import note_waiting
from megdet.launchers.slurm.limits import Limits, read_limits
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.rehearsal import Rehearsal, rehearse
from megdet.launchers.slurm.resources import Array, Resources, arrays_of
from megdet.launchers.slurm.submission import Submission
from megdet.launchers.watch import watch
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.data_places import portable
from megdet.runs.folder import folder_of, run_folder
from megdet.runs.prediction import Predictors, predict_all
from megdet.runs.status import Status

PAPERS_NODES, PAPERS_GPUS_PER_NODE = 16, 8
FEED_S = 30.0
MANY = 1_000_000
"""Stands for an array size that nobody has been asked for."""


class SlurmLauncher:
    """Hands runs over to Slurm, each with its own nodes, GPUs and time limit."""

    def __init__(
        self,
        *,
        wait: bool = True,
        program: Sequence[str] = RANK_PROGRAM,
        client: SlurmClient | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
        feed_s: float = FEED_S,
    ) -> None:
        """`wait`: watch the jobs until they end. `pauses_s`: between attempts at sbatch of a busy controller; `feed_s`:
        between those that look whether there is room for more jobs.
        """
        self.wait, self._program, self._pauses_s, self._feed_s = wait, program, pauses_s, feed_s
        self._client = client or SlurmClient()
        self._queue = SlurmQueue(self._client)
        self._said_papers = False
        self._predictors = Predictors()
        self._rehearsed: list[tuple[Resources, Rehearsal]] = []
        """What Slurm has said of each need, asked once."""

    def resolve(self, config: Config) -> Config:
        """The config with what is `auto` in `cluster` as what Slurm says it has. Raises UserError.

        A dry run where no Slurm is at hand is planned for the paper's cluster.
        """
        if "auto" not in (config.cluster.nodes, config.cluster.gpus_per_node):
            return config
        try:
            found = self._found_within(config.cluster)
        except SlurmError as error:
            if config.sweep.dry_run:
                return self._on_the_papers(config, error)
            raise UserError(NO_SLURM.format(f"Slurm does not say what there is ({_last_line(error)})")) from None
        return fit(config, found, partition=os.environ.get("SBATCH_PARTITION"))

    def check(self, plan: Plan) -> None:
        """Raises UserError for what Slurm would refuse, or let wait for ever."""
        resources = self._resources_of(plan)
        try:
            found = self._found_within(resources.cluster, gpus_per_node=resources.gpus_per_node)
        except SlurmError:
            return  # submission says what is wrong with Slurm
        check_fits(plan, found, time_min=resources.time_min, partition=os.environ.get("SBATCH_PARTITION"))
        said = self._rehearsal_of(resources, plan).refusal
        if said:
            raise UserError(
                f"{resources.describe()}: Slurm would not take such a job (sbatch --test-only): {said}. "
                "sweep.dry_run=true shows its script, and cluster.* what it asks for"
            )

    def expected_start(self, plan: Plan) -> Start:
        longest = Resources.of(plan).time_min
        if isinstance(self._answer, SlurmError):
            return Start(None, f"Slurm does not answer ({_last_line(self._answer)})", longest)
        self.check(plan)
        said = self._rehearsal_of(self._resources_of(plan), plan)
        return Start(said.start, said.unknown, longest)

    def _resources_of(self, plan: Plan) -> Resources:
        predicted = self._predictors.predict(plan)
        return Resources.of(plan, hours=predicted.alone_hours if predicted else None)

    def _rehearsal_of(self, resources: Resources, plan: Plan) -> Rehearsal:
        """Asked once for equal needs."""
        if resources not in [known for known, _ in self._rehearsed]:
            self._rehearsed.append((resources, rehearse(Array(resources, (plan,)), self._client)))
        return next(said for known, said in self._rehearsed if known == resources)

    def _found_within(self, cluster: ClusterSettings, *, gpus_per_node: int | None = None) -> Cluster:
        """What one job may have of it. Raises SlurmError."""
        found = self._found
        return self._limits.within(found, cluster, gpus_per_node=gpus_per_node)

    @cached_property
    def _limits(self) -> Limits:
        """Asked once."""
        return read_limits(self._client.call)

    @property
    def _found(self) -> Cluster:
        """What there is. Raises SlurmError."""
        if isinstance(self._answer, SlurmError):
            raise self._answer
        return self._answer

    @cached_property
    def _answer(self) -> Cluster | SlurmError:
        """Asked once for all points of a sweep, also where nobody answers."""
        try:
            found = discover(self._client.call)
        except SlurmError as error:
            return error
        if not found.shapes:
            return SlurmError("sinfo names no node in service")
        print(f"Slurm has {found.describe()}", file=sys.stderr, flush=True)
        return found

    def _on_the_papers(self, config: Config, error: SlurmError) -> Config:
        if not self._said_papers:
            print(
                f"no Slurm here ({_last_line(error)}): planned for the paper's cluster, {PAPERS_NODES} nodes of "
                f"{PAPERS_GPUS_PER_NODE} GPUs (cluster=paper)",
                file=sys.stderr,
                flush=True,
            )
            self._said_papers = True
        config = copy.deepcopy(config)
        cluster = config.cluster
        cluster.nodes = PAPERS_NODES if cluster.nodes == "auto" else cluster.nodes
        cluster.gpus_per_node = PAPERS_GPUS_PER_NODE if cluster.gpus_per_node == "auto" else cluster.gpus_per_node
        return config

    def remarks(self, plans: Sequence[Plan]) -> Sequence[str]:
        return ()

    def preview(self, plans: Sequence[Plan], *, canaries: Sequence[Canary] = ()) -> str:
        """The scripts that would be submitted, as far as they can be known without asking Slurm."""
        parts = []
        first = _arrays([canary.plan for canary in canaries], max_array_size=MANY)
        behind = [
            replace(array, canary_jobs=("CANARY",) * len(array.canaries))
            for array in _arrays_behind(plans, canaries, max_array_size=MANY)
        ]
        for number, array in enumerate([*first, *behind], start=1):
            runs = ", ".join(plan.run_id for plan in array.plans)
            sources = [run for run in array.sources if run in {plan.run_id for plan in plans}]
            runs += f", after {', '.join(sources)}" if sources else ""
            text = script_of(array, submissions_folder(_runs_dir(plans)) / f"megdet-NEW-{number}")
            parts.append(f"--- {array.resources.describe()}: {runs}\n{text}")
        return "\n".join(parts)

    def run(
        self,
        plans: Sequence[Plan],
        under_way: Sequence[Plan],
        *,
        mirror: Callable[[Plan], None],
        canaries: Sequence[Canary] = (),
    ) -> ExitCode:
        """Submit plans and, if asked to, watch them together with those that are under way; the exit code."""
        if canaries:
            make_way(canaries)
            print(announced(canaries), flush=True)
            for canary in canaries:
                note_waiting(canary, canaries)
        of_canaries = [canary.plan for canary in canaries]
        self._hand_over(of_canaries, ())
        self._hand_over(plans, canaries)
        if not self.wait:
            print("they go on by themselves: megdet status, megdet wait, megdet cancel", flush=True)
            return ExitCode.OK
        watched = [*of_canaries, *under_way, *plans]
        code = watch([folder_of(plan) for plan in watched], mirror=lambda number: mirror(watched[number]))
        tell(canaries)
        return code

    def _hand_over(self, plans: Sequence[Plan], canaries: Sequence[Canary]) -> None:
        """Submit all plans, as others end where Slurm takes no more. Raises UserError where nobody waits for that."""
        left, said = list(plans), ""
        while left:
            left, words = self.submit(left, lambda line: print(line, flush=True), canaries=canaries)
            if not left:
                break
            runs = "1 run waits" if len(left) == 1 else f"{len(left)} runs wait"
            if not self.wait:
                raise UserError(
                    f"Slurm takes no more jobs of yours now ({words}); {runs} to be submitted: give the same line "
                    "again when some have ended, or with sweep.wait=true, which hands them over as others end"
                )
            if words != said:
                print(f"Slurm takes no more jobs now ({words}); {runs} for others to end", flush=True)
                said = words
            time.sleep(self._feed_s)

    def submit(
        self, plans: Sequence[Plan], say: Callable[[str], None], *, canaries: Sequence[Canary] = ()
    ) -> tuple[list[Plan], str]:
        """Freeze plans and submit them in as few arrays as can be; those that Slurm does not take now, and its words.

        `say` is called with a line on each array as soon as Slurm has it. An array that is too large for a limit is
        halved. Raises UserError where Slurm does not take one for another reason; what was submitted before stays.
        """
        runs_dir = _runs_dir(plans)
        submitted: set[str] = set()
        with submitting(runs_dir):
            self._reconcile(runs_dir)
            stamp = f"megdet-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            left = deque(_arrays_behind(_not_under_way(plans), canaries, max_array_size=self._most_at_once))
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

    @property
    def _most_at_once(self) -> int:
        """Elements that an array may have, as far as Slurm says so beforehand."""
        try:
            most = self._found.max_submit_jobs
        except SlurmError:
            most = None
        return min(self._max_array_size, most or MANY)

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


def _arrays(plans: Sequence[Plan], *, max_array_size: int) -> list[Array]:
    hours = [predicted.alone_hours if predicted else None for predicted in predict_all(plans)]
    return arrays_of(plans, max_array_size=max_array_size, hours=hours)


def _arrays_behind(plans: Sequence[Plan], canaries: Sequence[Canary], *, max_array_size: int) -> list[Array]:
    """As `_arrays`, each with what it waits for; with a budget, which is that of all, every run waits for all canaries.

    Runs whose canary has failed by now are left out.
    """
    if not canaries:
        return _arrays(plans, max_array_size=max_array_size)
    arrays: list[Array] = []
    for canary in canaries:
        own = {plan.run_id for plan in canary.waiting}
        members = [plan for plan in plans if plan.run_id in own]
        awaited = [canary] if canary.plan.config.sweep.max_gpu_hours is None else canaries
        folders = tuple(folder_of(one.plan) for one in awaited)
        if any(state is not None and state.status == Status.FAILED for state in (one.state() for one in folders)):
            continue
        jobs = [Submission.read(folder_of(one.plan)) for one in awaited if not one.has_passed]
        running = tuple(submission.job for submission in jobs if submission)
        # The end of the canary lowers the longest time limit to what is needed (`let_go`).
        group = arrays_of if jobs else _arrays
        found = group(members, max_array_size=max_array_size)
        arrays += [replace(array, canaries=folders, canary_jobs=running) for array in found]
    return arrays


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


def _runs_dir(plans: Sequence[Plan]) -> Path:
    return Path(plans[0].config.runs_dir)


def _last_line(error: SlurmError) -> str:
    """Slurm's programs say the outcome last."""
    return str(error).splitlines()[-1]
