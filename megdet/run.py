"""One rank of one run.

`python -m megdet.run runs/<run_id>/plan.json` is all that a launcher starts, once per GPU. Exit codes: 0 finished or
diverged, 1 failed, 2 a mistake in what was asked, 3 interrupted (started again, it goes on from its checkpoint).
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from megdet.errors import ExitCode
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.guard import guarded
from megdet.runs.rank_environment import ATTEMPT
from megdet.training.ending import record_failure, start_log
from megdet.training.stop_signals import StopSignals


def main() -> int:
    """Run one rank as the command line and the launcher's environment say."""
    parser = argparse.ArgumentParser(prog="python -m megdet.run", description="Runs one rank of a planned run.")
    parser.add_argument("plan", type=Path, help="the run's plan.json; its folder is the run's")
    path: Path = parser.parse_args().plan.resolve()
    rank = int(os.environ.get("RANK", "0"))
    folder = RunFolder(path.parent).owned_by(_attempt())
    start_log(folder, rank)
    stop = StopSignals()
    try:
        if ATTEMPT not in os.environ and rank == 0:
            folder.claim(_attempt())
        with guarded(folder) if rank == 0 else nullcontext():
            return _run(path, folder, rank, stop)
    except LostOwnership as error:
        # Not a word into the folder: it is another attempt's.
        print(error, file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        return record_failure(folder, rank, error)


def _run(path: Path, folder: RunFolder, rank: int, stop: StopSignals) -> ExitCode:
    # Imported here, with the log open: a node whose torch or driver is broken says so in failure.json.
    from megdet.launchers.jobs import job_environment_of
    from megdet.planning.plan import Plan
    from megdet.runs.data_places import located
    from megdet.training.attempt import Attempt
    from megdet.training.canary import CanaryAttempt
    from megdet.training.distributed import Ranks
    from megdet.training.watchdog import Watchdog

    ranks = Ranks.from_environment()
    plan = Plan.from_json(path.read_bytes())
    plan = replace(plan, config=located(plan.config, folder))
    plan.check_ranks(ranks.world_size)
    ranks.check_device()
    timeout = timedelta(minutes=plan.config.cluster.timeout_min)
    # It speaks before a collective's own time-out, which knows no rank and no place.
    with (
        Watchdog(folder, rank, timeout_s=0.9 * timeout.total_seconds()) as watchdog,
        replace(ranks, timeout=timeout) as joined,
    ):
        attempt = CanaryAttempt if folder.is_canary else Attempt
        return attempt(plan, folder, joined, stop, job_environment_of(folder), watchdog).go()


def _attempt() -> str:
    """The launcher's name for this attempt; started by hand, a name that all of its ranks come to."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    by_hand = str(os.getpid()) if alone else f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return os.environ.get(ATTEMPT, f"by-hand-{by_hand}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after an error, the process group's destructor would wait for ranks that are gone.
    os._exit(code)
