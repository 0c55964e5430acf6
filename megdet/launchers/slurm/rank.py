"""What submitit runs on the nodes, once per GPU: it becomes the program of a rank, the same as on any machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import submitit

from megdet.errors import ExitCode
from megdet.launchers.rank import rank_environment
from megdet.launchers.slurm.attempt import SlurmAttempt
from megdet.launchers.slurm.end import fail, next_state
from megdet.launchers.slurm.job_log import begins
from megdet.launchers.slurm.meeting import meet_here, meet_there
from megdet.launchers.slurm.payload import Payload
from megdet.launchers.slurm.retries import count_retry, lost_its_job
from megdet.runs.folder import LostOwnership, RunFolder

HELD_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Rank(submitit.helpers.Checkpointable):
    """The submitted callable; submitit pickles its name and the path of the payload, nothing else.

    Runs have checkpoints of their own. A rank that is told to make room before it has become its program is put back
    into the queue by submitit, as any checkpointable is.
    """

    def __call__(self, payload_file: str) -> None:
        """Does not return: the process becomes the rank's program."""
        # Kept for the program, which takes seconds to load and then listens to them.
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        job, attempt = submitit.JobEnvironment(), SlurmAttempt.here()
        assert attempt is not None, "only Slurm starts this"
        payload = Payload.read(Path(payload_file))
        number = int(job.array_task_id or 0)
        folder, name = payload.runs[number], attempt.name(payload.folder.name)
        listener = -1
        if job.global_rank == 0:
            meeting, open_socket = meet_here(begin(attempt, payload, number), nodes=job.num_nodes)
            listener = open_socket.detach()
        else:
            meeting = meet_there(folder, name)
            write_to(folder.log(job.global_rank))
        environment = rank_environment(
            os.environ,
            attempt=name,
            rank=job.global_rank,
            local_rank=job.local_rank,
            ranks=job.num_tasks,
            ranks_per_node=job.num_tasks // job.num_nodes,
            address=meeting.address,
            port=meeting.port,
            listener=listener,
            threads=int(os.environ.get("SLURM_CPUS_PER_TASK", "1")),
        )
        os.execve(sys.executable, [sys.executable, *payload.program, str(folder.plan)], environment)


def begin(attempt: SlurmAttempt, payload: Payload, number: int) -> RunFolder:
    """Rank 0 makes the run's folder this attempt's; ends the program where that is not its right, or not its turn."""
    folder = payload.runs[number]
    try:
        owned = attempt.claim(folder, payload.folder.name)
    except LostOwnership as error:
        sys.exit(str(error))
    payload.note_job(number, array=attempt.array)
    print(begins(str(owned.owner)), file=sys.stderr, flush=True)
    if attempt.restarts and lost_its_job(folder) and not count_retry(folder):
        fail(owned, next_state(folder), "its job was lost again and again without any progress")
        sys.exit(ExitCode.RUN_FAILED)
    owned.forget_failure()
    return owned


def write_to(log: Path) -> None:
    """Standard output and error of this process go to `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
