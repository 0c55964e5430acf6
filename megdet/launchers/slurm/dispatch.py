"""Submission by submitit: an array of runs becomes one call of `SlurmExecutor.map_array`.

submitit writes the script, calls sbatch, and starts `Rank` on the nodes, once per GPU by one srun.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

import megdet
from megdet.config.cluster import ClusterSettings
from megdet.errors import UserError
from megdet.launchers.rank import SAFE_PATH
from megdet.launchers.slurm.client import OF_THE_SITE, SlurmError
from megdet.launchers.slurm.payload import PAYLOAD, Payload
from megdet.launchers.slurm.rank import Rank
from megdet.launchers.slurm.resources import Array
from megdet.runs.code import frozen_code

TIMEOUT_S = 60.0
"""For one call of sbatch."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Between the attempts at sbatch while the controller is busy."""
WITHOUT_END = 1_000_000
"""How often submitit may requeue a job at its time limit: a run may take as many jobs as it needs."""

NO_SLURM = (
    "hydra/launcher=submitit_slurm: {}; launch from a login node of the cluster, or leave hydra/launcher out to "
    "run here"
)

BUSY = re.compile(
    r"timed out|Unable to contact|Connection refused|Resource temporarily unavailable|try again|temporarily|"
    r"Zero Bytes|Communication connection failure|Transport endpoint",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"MaxSubmit|submit limit|job submit|MaxJobs|MaxJobCount|job array (size|specification)|too many (jobs|tasks)|"
    r"Slurm temporarily unable to accept job",
    re.IGNORECASE,
)


class SubmitLimit(UserError):
    """Slurm takes no job of that many elements now; the text is its own."""


def dispatch(
    array: Array,
    payload: Payload,
    *,
    already: Callable[[], str | None],
    pauses_s: Sequence[float] = PAUSES_S,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """The id of the job that Slurm makes of an array; tried again while the controller is busy.

    `already()`: the job where an earlier attempt made it and only the answer was lost.

    Raises UserError where Slurm is not there or refuses, with its words (SubmitLimit where there are too many);
    SlurmError where it is not known whether there is a job.
    """
    try:
        executor = submitit.SlurmExecutor(
            payload.folder, max_num_timeout=WITHOUT_END, python=python_of(array.resources.cluster)
        )
    except RuntimeError:
        raise UserError(NO_SLURM.format("there is no srun on this machine")) from None
    executor.update_parameters(**parameters_of(array, payload.folder))
    for pause_s in (*pauses_s, None):
        try:
            return _submit(executor, payload, array.resources.cluster, timeout_s)
        except FileNotFoundError:
            raise UserError(NO_SLURM.format("there is no sbatch on this machine")) from None
        except SlurmError as error:
            if _TOO_MANY.search(str(error)):
                raise SubmitLimit(str(error)) from None
            if not BUSY.search(str(error)):
                raise UserError(f"Slurm does not take the job: {error}\nsweep.dry_run=true shows its script") from None
            if pause_s is None:
                raise
        time.sleep(pause_s)
        if job := already():
            return job
    raise AssertionError("the last attempt returns or raises")


def script_of(array: Array, folder: Path) -> str:
    """The script that `dispatch` would submit, on a machine without Slurm too."""
    preview = _Preview(folder, python=python_of(array.resources.cluster))
    preview.update_parameters(**parameters_of(array, folder))
    return preview.script(len(array.plans))


def parameters_of(array: Array, folder: Path) -> dict[str, Any]:
    """An array's needs in submitit's words; `folder` is the submission's, whose name is the job's."""
    resources, cluster = array.resources, array.resources.cluster
    # From 22.05 on, srun does not take --cpus-per-task over from sbatch: ranks would share a core.
    cpus = [f"--cpus-per-task={cluster.cpus_per_gpu}"] if cluster.cpus_per_gpu else []
    parameters: dict[str, Any] = {
        "job_name": folder.name,
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
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **_further_options(cluster), **_dependency(array)},
        "setup": _setup(cluster, folder, frozen_code(array.plans[0])),
        # --output=all: what ranks say before they have logs of their own comes into the job's log.
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60", "--output=all", *cpus, *cluster.srun_args],
        "teardown": [f'exec {python_of(cluster)} -u -m megdet.launchers.slurm.end {_quoted(folder / PAYLOAD)} "$?"'],
    }
    # submitit would ask for a wckey of its own, which not every site has.
    return {**{key: value for key, value in parameters.items() if value is not None}, "wckey": None}


def _further_options(cluster: ClusterSettings) -> dict[str, str | bool]:
    """`true` is an option that takes no value (`hold`), `false` one that is not given."""
    options = cluster.sbatch_options.items()
    return {key: value.lower() == "true" or value for key, value in options if value.lower() != "false"}


def _dependency(array: Array) -> dict[str, str]:
    """What it waits for, besides the jobs that the user names; Slurm cancels what a failed canary keeps for ever."""
    own = array.resources.cluster.sbatch_options.get("dependency")
    after = ":".join(["afterany", *array.after]) if array.after else None
    canaries = ":".join(["afterok", *array.canary_jobs]) if array.canary_jobs else None
    all_of = [*filter(None, [own, after, canaries])] if after or canaries else []
    return ({"dependency": ",".join(all_of)} if all_of else {}) | ({"kill_on_invalid_dep": "yes"} if canaries else {})


def python_of(cluster: ClusterSettings) -> str:
    """The nodes' Python, for a shell."""
    return shlex.join([*shlex.split(cluster.container or ""), cluster.python or sys.executable])


class _Preview(submitit.SlurmExecutor):
    """Shows the script that submitit would submit. submitit has no public way to see it first."""

    @classmethod
    def affinity(cls) -> int:
        """submitit asks whether this machine has Slurm; a preview needs none."""
        return 2

    def script(self, count: int) -> str:
        if count > 1:
            self.parameters["map_count"] = count
        return self._make_submission_file_text(self._submitit_command_str, "")


def _submit(executor: submitit.SlurmExecutor, payload: Payload, cluster: ClusterSettings, timeout_s: float) -> str:
    """Raises SlurmError, and FileNotFoundError where there is no sbatch."""
    said = io.StringIO()
    try:
        with _outside_of_jobs(cluster), _time_limit(timeout_s), contextlib.redirect_stderr(said):
            jobs = executor.map_array(Rank(), [str(payload.file)] * len(payload.runs))
    except (FailedJobError, FailedSubmissionError, TimeoutError) as error:
        if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
            raise SlurmError(f"sbatch timed out: no answer in {timeout_s:g} s") from None
        raise SlurmError(str(error) or said.getvalue()) from None
    return jobs[0].job_id.partition("_")[0]


def _setup(cluster: ClusterSettings, folder: Path, frozen: Path | None) -> list[str]:
    """Shell lines before the ranks: the site's, then ours. `frozen`: where the copy of megdet is that they run."""
    root = _quoted(Path(megdet.__file__).parents[1])
    job = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    # submitit's scripts are bash's. What fails here would fail later, with another message or, worse, without one.
    guard = ["trap 'echo \"cluster.setup failed: $BASH_COMMAND\" >&2; exit 97' ERR", *cluster.setup, "trap - ERR"]
    return [
        *(guard if cluster.setup else []),
        *_code(frozen, root),
        # The shell outlives the signals that its ranks get, so that the last line is reached.
        "trap : TERM USR2",
        "# Where the launcher was killed before it gave this job its callable; those of an array are all alike.",
        f'callable={_quoted(folder)}/"{job}_submitted.pkl"',
        f'test -e "$callable" || cp "$(ls {_quoted(folder)}/*.pkl | head -n 1)" "$callable"',
    ]


def _code(frozen: Path | None, root: str) -> list[str]:
    """Lines by which the nodes find this very package, installed or not, or its copy, as `with_code` does."""
    if frozen is None:
        return [f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}"]
    path = f'{_quoted(frozen)}:"$PWD"${{PYTHONPATH:+:$PYTHONPATH}}:{root}'
    return [f"export PYTHONPATH={path}", f"export {SAFE_PATH}=1"]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _memory(gb_per_gpu: float | None, gpus_per_node: int) -> str | None:
    return None if gb_per_gpu is None else f"{round(gb_per_gpu * gpus_per_node * 1024)}M"


DEFAULTS_OF_SBATCH = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_RESERVATION": "reservation",
}
"""What users set once for all of their jobs, and our setting of the same meaning. To sbatch the variable outweighs the
script, so that it is left out where the setting is given."""


def defaults_of_sbatch(cluster: ClusterSettings) -> dict[str, str]:
    """The user's defaults for jobs that `cluster.*` does not replace."""
    given = {name for name in ("account", "partition", "qos", "constraint") if getattr(cluster, name) is not None}
    given |= set(cluster.sbatch_options)
    return {
        key: os.environ[key]
        for key, setting in DEFAULTS_OF_SBATCH.items()
        if key in os.environ and setting not in given
    }


@contextlib.contextmanager
def _outside_of_jobs(cluster: ClusterSettings) -> Iterator[None]:
    """Without a surrounding job's variables: they would become the new job's settings."""
    site = {key: os.environ[key] for key in OF_THE_SITE if key in os.environ} | defaults_of_sbatch(cluster)
    with submitit.helpers.clean_env([key for key in os.environ if key.startswith("PMI")]):
        os.environ.update(site)
        yield


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError after so many seconds: submitit waits for sbatch without end. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
