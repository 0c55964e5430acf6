"""Runs on a Slurm cluster: those with equal needs become job arrays, and every run knows its job.

The launcher may die at any moment; jobs go on.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.launchers.canaries import announced, make_way, tell
from megdet.launchers.interface import Start
from megdet.launchers.jobs import Jobs
from megdet.launchers.rank import RANK_PROGRAM
from megdet.launchers.slurm.arrays import MANY, arrays_behind, arrays_with_hours
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.discovery import Cluster, discover
from megdet.launchers.slurm.dispatch import NO_SLURM, PAUSES_S, script_of
from megdet.launchers.slurm.elastic import Moves, Service, planned_again
from megdet.launchers.slurm.fitting import check_fits, fit
from megdet.launchers.slurm.intents import submissions_folder
from megdet.launchers.slurm.let_go import note_waiting
from megdet.launchers.slurm.limits import Limits, read_limits
from megdet.launchers.slurm.rehearsal import Rehearsal, rehearse
from megdet.launchers.slurm.resources import Array, Resources
from megdet.launchers.slurm.retries import carry_over, count_retry, ended_by_slurm
from megdet.launchers.slurm.submission import Submission
from megdet.launchers.slurm.submitter import Submitter, runs_dir_of
from megdet.launchers.watch import watch
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.prediction import Predictors

PAPERS_NODES, PAPERS_GPUS_PER_NODE = 16, 8
FEED_S = 30.0


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
        self.wait, self._feed_s = wait, feed_s
        self._client = client or SlurmClient()
        self._submitter = Submitter(self._client, program, pauses_s)
        self._said_papers = False
        self._predictors = Predictors()
        self._rehearsed: list[tuple[Resources, Rehearsal]] = []
        """What Slurm has said of each need, asked once."""

    def resolve(self, config: Config) -> Config:
        """The config with what is `auto` in `cluster` as what Slurm says it has. Raises UserError.

        A dry run where no Slurm is at hand is planned for the paper's cluster.
        """
        if "auto" not in (config.cluster.nodes, config.cluster.gpus_per_node) and not config.cluster.elastic:
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
        first = arrays_with_hours([canary.plan for canary in canaries], max_array_size=MANY)
        behind = [
            replace(array, canary_jobs=("CANARY",) * len(array.canaries))
            for array in arrays_behind(plans, canaries, max_array_size=MANY)
        ]
        for number, array in enumerate([*first, *behind], start=1):
            runs = ", ".join(plan.run_id for plan in array.plans)
            sources = [run for run in array.sources if run in {plan.run_id for plan in plans}]
            runs += f", after {', '.join(sources)}" if sources else ""
            text = script_of(array, submissions_folder(runs_dir_of(plans)) / f"megdet-NEW-{number}")
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
        moves = Moves([*under_way, *plans], client=self._client, hand_over=self._hand_over_again)
        moves.look_at_once([folder_of(plan) for plan in under_way])
        if not self.wait:
            print("they go on by themselves: megdet status, megdet wait, megdet cancel", flush=True)
            return ExitCode.OK
        watched = [*of_canaries, *under_way, *plans]
        while True:
            folders = [folder_of(plan) for plan in watched]
            code = watch(folders, mirror=lambda number: mirror(watched[number]), at_each_look=moves.look)
            if code == ExitCode.OK or not self._submit_again([*under_way, *plans]):
                break
        tell(canaries)
        return code

    def _submit_again(self, plans: Sequence[Plan]) -> bool:
        """Submit what Slurm's side has ended, and neither job nor Slurm could start again; whether there was any."""
        folders = {folder_of(plan): plan for plan in plans}
        look = Jobs().look_at(list(folders))
        before: dict[RunFolder, Submission] = {}
        for folder in folders:
            stand = look.stand(folder)
            if ended_by_slurm(folder, stand, look.diagnosis(folder, stand)) and count_retry(folder):
                counted = Submission.read(folder)
                assert counted is not None, "as has been counted"
                before[folder] = counted
        if not before:
            return False
        print(f"submitted again, as Slurm ended them: {', '.join(folder.name for folder in before)}", flush=True)
        again = [folders[folder] for folder in before]
        service = Service(self._client)
        self._hand_over_again([planned_again(plan, service) or plan for plan in again], list(before.values()))
        return True

    def _hand_over_again(self, plans: Sequence[Plan], before: Sequence[Submission]) -> None:
        """Submit runs that had a job `before`."""
        self._hand_over(plans, ())
        for plan, submission in zip(plans, before, strict=True):
            carry_over(folder_of(plan), submission)

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
        """What `Submitter.submit` does, in arrays as large as Slurm says that it takes."""
        try:
            most = self._found.max_submit_jobs
        except SlurmError:
            most = None
        return self._submitter.submit(plans, say, canaries=canaries, most_at_once=most)


def _last_line(error: SlurmError) -> str:
    """Slurm's programs say the outcome last."""
    return str(error).splitlines()[-1]
