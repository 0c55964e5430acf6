"""One run on this machine, from the claim of its folder to the end of its last rank.

    python -m megdet.launchers.local.one_run < plan.json

is a launcher of its own for one run, with the GPUs that CUDA_VISIBLE_DEVICES leaves it; its exit code says how the
run ended (`megdet.errors.ExitCode`).
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Sequence

from megdet.errors import ExitCode, UserError
from megdet.launchers.local.lock import locked
from megdet.launchers.local.machine import Machine
from megdet.launchers.local.ranks import FAILURE_GRACE_S, STOP_GRACE_S, RankProcesses
from megdet.launchers.rank import RANK_PROGRAM
from megdet.planning.plan import Plan
from megdet.runs.causes import diagnose
from megdet.runs.code import frozen_code
from megdet.runs.data_places import portable
from megdet.runs.folder import LostOwnership, RunFolder, folder_of
from megdet.runs.status import Stand, Status

LOCK_PATIENCE_S = 0.5
"""Who only looks whether a run is being run holds its lock for an instant."""


def run_local(
    plan: Plan,
    *,
    program: Sequence[str] = RANK_PROGRAM,
    machine: Machine | None = None,
    stop_grace_s: float = STOP_GRACE_S,
    failure_grace_s: float = FAILURE_GRACE_S,
) -> Status:
    """Run (or go on with) a plan on this machine until it ends; how it ended.

    Writes plan.json and starts `python PROGRAM PLAN` once per rank. A rank that dies takes the others with it; what was
    not the code's fault is started again, from the last checkpoint, up to `cluster.max_retries` times without progress.
    SIGINT, SIGTERM and SIGHUP reach the ranks as SIGTERM; a second one kills them. Only for the main thread.

    Raises UserError where the run is being run already.
    """
    machine = machine or Machine.here()
    folder, ranks = folder_of(plan), plan.layout.gpus
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder, patience_s=LOCK_PATIENCE_S) as lock:
            retries, made_at = 0, _checkpoint_time(folder)
            while True:
                owned = folder.claim(f"local-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
                owned.forget_submission()
                owned.write_plan(portable(plan, owned).to_json())
                owned.forget_failure()
                processes = RankProcesses(
                    owned,
                    program=program,
                    ranks=ranks,
                    threads=None if machine.gpus else max(1, machine.cores // ranks),
                    code=frozen_code(plan),
                    lock=lock,
                    stop_grace_s=stop_grace_s,
                    failure_grace_s=failure_grace_s,
                )
                status = processes.run()
                found = diagnose(owned, Stand(status))
                if status != Status.FAILED or found is None or not found.cause.retried:
                    return status
                before, made_at = made_at, _checkpoint_time(folder)
                retries = 1 if made_at > before else retries + 1
                most = plan.config.cluster.max_retries
                if retries > most:
                    return status
                said = f"{plan.run_id}: {found.reason}: started again from its last checkpoint ({retries} of {most})"
                print(said, file=sys.stderr, flush=True)
    except LostOwnership as error:
        raise UserError(f"{error}; it is run elsewhere now") from None
    except BlockingIOError:
        raise UserError(
            f"{plan.run_id} is being run by another launcher (folder {folder.path}); wait for it, or stop it first"
        ) from None


def _checkpoint_time(folder: RunFolder) -> float:
    return folder.checkpoint.stat().st_mtime if folder.checkpoint.exists() else 0.0


EXIT_CODES = {
    Status.FINISHED: ExitCode.OK,
    Status.DIVERGED: ExitCode.OK,
    Status.FAILED: ExitCode.RUN_FAILED,
    Status.INTERRUPTED: ExitCode.INTERRUPTED,
}


def main(*program: str) -> ExitCode:
    """Run the plan on standard input; `program` instead of RANK_PROGRAM, if any is given."""
    try:
        return EXIT_CODES[run_local(Plan.from_json(sys.stdin.read()), program=program or RANK_PROGRAM)]
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return ExitCode.USER_ERROR


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
