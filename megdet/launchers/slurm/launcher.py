"""Runs on a Slurm cluster: groups become job arrays that submitit writes, and every run knows its job.

Nothing is pickled: a job gets the path of a frozen plan. The launcher may die at any moment; jobs go on.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submitit.slurm.slurm import _make_sbatch_string

from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.launchers.client import SlurmError, max_array_size, submit
from megdet.launchers.job_states import jobs_named
from megdet.launchers.ledger import SCRIPT, book, reconcile, submitting, withdraw, write_intent
from megdet.launchers.local import folder_of
from megdet.launchers.monitor import watch
from megdet.launchers.run_status import run_status, states_of_jobs
from megdet.launchers.sbatch import Array, Resources, arrays_of, command_of, sbatch_parameters, submissions_folder
from megdet.planning.plan import Plan
from megdet.runs.files import replace_file
from megdet.runs.prediction import predict_all

MANY = 1_000_000
"""Stands for an array size that nobody has been asked for."""


class SlurmLauncher:
    """Hands runs over to Slurm, each with its own nodes, GPUs and time limit."""

    def __init__(self, *, wait: bool = True) -> None:
        """`wait`: watch the jobs until they end."""
        self.wait = wait

    def resolve(self, config: Config) -> Config:
        """The config as it is; `auto` would mean this machine, which is not where the run goes."""
        if config.cluster.gpus_per_node == "auto":
            raise UserError(
                "cluster.gpus_per_node=auto means this machine, and hydra/launcher=submitit_slurm runs elsewhere; "
                "choose a cluster (cluster=paper, or a file of your own in conf/cluster/), or give "
                "cluster.gpus_per_node=8 cluster.nodes=4"
            )
        return config

    def check(self, plan: Plan) -> None:
        """Raises UserError for settings that cannot become a job."""
        Resources.of(plan)

    def preview(self, plans: Sequence[Plan]) -> str:
        """The scripts that would be submitted, as far as they can be known without asking Slurm."""
        parts = []
        for number, array in enumerate(_arrays(plans, max_array_size=MANY), start=1):
            runs = ", ".join(plan.run_id for plan in array.plans)
            name = f"megdet-NEW-{number}"
            text = sbatch_script(array, name=name, folder=submissions_folder(_runs_dir(plans)) / name)
            parts.append(f"--- {array.resources.describe()}: {runs}\n{text}")
        return "\n".join(parts)

    def run(self, plans: Sequence[Plan], under_way: Sequence[Plan], *, mirror: Callable[[Plan], None]) -> ExitCode:
        """Submit plans and, if asked to, watch them together with those that are under way; the exit code."""
        for line in submit_runs(plans) if plans else ():
            print(line, flush=True)
        if not self.wait:
            print("they go on by themselves: megdet status, megdet wait, megdet cancel", flush=True)
            return ExitCode.OK
        watched = [*under_way, *plans]
        return watch([folder_of(plan) for plan in watched], mirror=lambda number: mirror(watched[number]))


def submit_runs(plans: Sequence[Plan]) -> Iterator[str]:
    """Freeze the plans and submit them in as few arrays as can be; a line on each, as soon as Slurm has it.

    Raises UserError where Slurm does not take one; what was submitted before stays.
    """
    runs_dir = _runs_dir(plans)
    with submitting(runs_dir):
        reconcile_runs(runs_dir)
        plans = _not_under_way(plans)
        stamp = f"megdet-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        for number, array in enumerate(_arrays(plans, max_array_size=max_array_size()), start=1):
            job = _submit(array, submissions_folder(runs_dir) / f"{stamp}-{number}")
            count = len(array.plans)
            yield f"job {job}: {count} {'run' if count == 1 else 'runs'} on {array.resources.describe()}"


def reconcile_runs(runs_dir: Path) -> None:
    """Take over what a launcher that died has left, if there is anything and Slurm answers."""
    try:
        for line in reconcile(runs_dir, jobs_named):
            print(line, file=sys.stderr, flush=True)
    except SlurmError as error:
        raise UserError(
            f"a launcher died while it submitted, and Slurm does not say which of its jobs there are ({error}); "
            "try again when it answers"
        ) from None


def sbatch_script(array: Array, *, name: str, folder: Path) -> str:
    """The whole text that sbatch gets."""
    return _make_sbatch_string(
        command=command_of(array, folder=folder), folder=folder, **sbatch_parameters(array, name=name, folder=folder)
    )


def _arrays(plans: Sequence[Plan], *, max_array_size: int) -> list[Array]:
    hours = [predicted.hours if predicted else None for predicted in predict_all(plans)]
    return arrays_of(plans, max_array_size=max_array_size, hours=hours)


def _submit(array: Array, folder: Path) -> str:
    runs = [folder_of(plan) for plan in array.plans]
    for plan, run in zip(array.plans, runs, strict=True):
        run.path.mkdir(parents=True, exist_ok=True)
        replace_file(run.plan, plan.to_json())
        run.failure_file.unlink(missing_ok=True)
    write_intent(folder, runs)
    script = folder / SCRIPT
    script.write_text(sbatch_script(array, name=folder.name, folder=folder))
    try:
        job = submit(script, already=lambda: _array_named(folder.name))
    except UserError:
        withdraw(folder)
        raise
    except SlurmError as error:
        raise UserError(
            f"it is not known whether Slurm has taken {len(runs)} of the runs ({error}); launch again when it answers: "
            "what it has taken is found by its name"
        ) from None
    book(folder, job)
    return job


def _array_named(name: str) -> str | None:
    jobs = jobs_named(name)
    return jobs[0].partition("_")[0] if jobs else None


def _not_under_way(plans: Sequence[Plan]) -> list[Plan]:
    """Looked at again under the lock: another launcher may have submitted some since they were planned."""
    folders = [folder_of(plan) for plan in plans]
    states = states_of_jobs(folders)
    return [p for p, folder in zip(plans, folders, strict=True) if not run_status(folder, states).status.is_live]


def _runs_dir(plans: Sequence[Plan]) -> Path:
    return Path(plans[0].config.runs_dir)
