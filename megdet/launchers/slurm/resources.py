"""What each run needs of a cluster, and the arrays that runs with equal needs become. Pure: nothing is submitted."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import megdet
from megdet.config.schema import ClusterConfig
from megdet.errors import UserError
from megdet.planning.plan import Plan

TASK = "megdet.launchers.slurm_task"
"""The program of a job: one task per rank, and one at the end that says how the job came out."""


@dataclass(frozen=True)
class Resources:
    """What one run needs: nodes, ranks and time, and the site's settings around them."""

    nodes: int
    gpus_per_node: int
    """One task each."""
    time_min: int
    cluster: ClusterConfig

    @classmethod
    def of(cls, plan: Plan, *, hours: float | None = None) -> Resources:
        """`hours`: what the run is predicted to take. Raises UserError where the site's settings make no sense."""
        cluster = plan.config.cluster
        if cluster.time_min < 1 or cluster.time_min * 60 <= cluster.signal_delay_s:
            raise UserError(
                f"cluster.time_min={cluster.time_min}: a job of {cluster.time_min} min would be told to stop "
                f"cluster.signal_delay_s={cluster.signal_delay_s} s before its end, that is at once; raise time_min or "
                "lower signal_delay_s"
            )
        if cluster.signal_delay_s < 10:
            raise UserError(f"cluster.signal_delay_s={cluster.signal_delay_s}: use at least 10, for a checkpoint")
        if cluster.array_parallelism < 1:
            raise UserError(f"cluster.array_parallelism={cluster.array_parallelism}: use at least 1")
        time_min = min(cluster.time_min, _generous_min(hours)) if hours is not None else cluster.time_min
        return cls(plan.layout.nodes, plan.layout.gpus_per_node, time_min, cluster)

    def describe(self) -> str:
        """In a few words, for a reader."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{nodes} x {self.gpus_per_node} GPUs, {self.time_min} min"


@dataclass(frozen=True)
class Array:
    """Runs with equal resources, in one submission; a job array where they are several."""

    resources: Resources
    plans: tuple[Plan, ...]


def arrays_of(
    plans: Sequence[Plan], *, max_array_size: int, hours: Sequence[float | None] | None = None
) -> list[Array]:
    """Runs grouped by equal resources, in their order; no group larger than an array may be.

    `hours`: what each is predicted to take; None where that is not known.
    """
    groups: list[tuple[Resources, list[Plan]]] = []
    for plan, predicted in zip(plans, hours or [None] * len(plans), strict=True):
        resources = Resources.of(plan, hours=predicted)
        for known, members in groups:
            if known == resources:
                members.append(plan)
                break
        else:
            groups.append((resources, [plan]))
    return [Array(resources, chunk) for resources, members in groups for chunk in _chunks(members, max_array_size)]


def sbatch_parameters(array: Array, *, name: str, folder: Path) -> dict[str, Any]:
    """What submitit's writer of sbatch files needs for an array; `folder` is where its files are."""
    resources, cluster = array.resources, array.resources.cluster
    count = len(array.plans)
    options: dict[str, Any] = {"requeue": True, "output": str(folder / ("%A_%a.log" if count > 1 else "%j.log"))}
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": resources.time_min,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.gpus_per_node,
        "gpus_per_node": resources.gpus_per_node if cluster.request_gpus else None,
        "cpus_per_task": cluster.cpus_per_gpu,
        "mem": _memory(cluster.mem_gb_per_gpu, resources.gpus_per_node),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "signal_delay_s": cluster.signal_delay_s,
        "mail_user": cluster.mail_user,
        "mail_type": cluster.mail_type if cluster.mail_user else None,
        "array_parallelism": cluster.array_parallelism,
        "map_count": count if count > 1 else None,
        "wckey": None,
        "stderr_to_stdout": True,
        "additional_parameters": {**options, **cluster.sbatch_options},
        "setup": _setup(cluster),
        # The line below is our own: submitit's has no CPU binding, and would write a file per rank.
        "use_srun": False,
    }
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def command_of(array: Array, *, folder: Path) -> str:
    """The last lines of the script: all ranks by one srun, then what became of them."""
    cluster = array.resources.cluster
    # From 22.05 on, srun does not take --cpus-per-task over from sbatch: ranks would share a core.
    cpus = [f"--cpus-per-task={cluster.cpus_per_gpu}"] if cluster.cpus_per_gpu else []
    srun = ["srun", "--unbuffered", "--kill-on-bad-exit=1", "--wait=60", *cpus, *cluster.srun_args]
    python = [*shlex.split(cluster.container or ""), cluster.python or sys.executable, "-u", "-m", TASK]
    runs = str(folder / "runs.json")
    return "\n".join(
        (
            # The shell outlives the signals that its ranks get, so that the last line is reached.
            "trap : TERM USR2",
            f"{shlex.join([*srun, *python, 'rank', runs])} &",
            "ranks=$!",
            'while wait "$ranks"; code=$?; kill -0 "$ranks" 2>/dev/null; do :; done',
            f'exec {shlex.join([*python, "end", runs])} "$code"',
        )
    )


def _setup(cluster: ClusterConfig) -> list[str]:
    """The nodes find this very package, installed or not."""
    root = shlex.quote(str(Path(megdet.__file__).parents[1]))
    return [*cluster.setup, f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}"]


def _generous_min(hours: float) -> int:
    """Twice the prediction, in steps far enough apart that similar runs share an array."""
    limit = 1
    while limit < 2 * hours:
        limit *= 2
    return 60 * limit


def _memory(gb_per_gpu: float | None, gpus_per_node: int) -> str | None:
    return None if gb_per_gpu is None else f"{round(gb_per_gpu * gpus_per_node * 1024)}M"


def _chunks(plans: Sequence[Plan], size: int) -> Iterator[tuple[Plan, ...]]:
    for first in range(0, len(plans), size):
        yield tuple(plans[first : first + size])


def submissions_folder(runs_dir: str | os.PathLike[str]) -> Path:
    """Where the scripts, logs and intent tokens of submissions are."""
    return Path(runs_dir).resolve() / ".submissions"
