"""One rank of one run.

`python -m megdet.run runs/<run_id>/plan.json` is all that a launcher starts, once per GPU. Exit codes: 0 finished or
diverged, 1 failed, 2 a mistake in what was asked, 3 interrupted (started again, it goes on from its checkpoint).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from megdet.errors import ExitCode
from megdet.launchers.jobs import job_environment_of
from megdet.planning.plan import Plan
from megdet.runs.folder import ATTEMPT, LostOwnership, RunFolder
from megdet.training.attempt import Attempt
from megdet.training.distributed import Ranks
from megdet.training.ending import record_failure, start_log
from megdet.training.stop_signals import StopSignals


def main() -> int:
    """Run one rank as the command line and the launcher's environment say."""
    parser = argparse.ArgumentParser(prog="python -m megdet.run", description="Runs one rank of a planned run.")
    parser.add_argument("plan", type=Path, help="the run's plan.json; its folder is the run's")
    path: Path = parser.parse_args().plan.resolve()
    ranks = Ranks.from_environment()
    folder = RunFolder(path.parent).owned_by(_attempt(ranks))
    start_log(folder, ranks.rank)
    stop = StopSignals()
    try:
        if ATTEMPT not in os.environ and ranks.rank == 0:
            folder.claim(_attempt(ranks))
        plan = Plan.from_json(path.read_text())
        plan.check_ranks(ranks.world_size)
        ranks.check_device()
        with ranks:
            return Attempt(plan, folder, ranks, stop, job_environment_of(folder)).go()
    except LostOwnership as error:
        # Not a word into the folder: it is another attempt's.
        print(error, file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        return record_failure(folder, ranks.rank, error)


def _attempt(ranks: Ranks) -> str:
    """The launcher's name for this attempt; started by hand, a name that all of its ranks come to."""
    by_hand = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}" if ranks.world_size > 1 else str(os.getpid())
    return os.environ.get(ATTEMPT, f"by-hand-{by_hand}")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after an error, the process group's destructor would wait for ranks that are gone.
    os._exit(code)
