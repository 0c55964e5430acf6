"""One rank of one run.

`python -m megdet.run runs/<run_id>/plan.json` is all that a launcher starts, once per GPU. Exit codes: 0 finished or
diverged, 1 failed, 2 a mistake in what was asked, 3 interrupted (started again, it goes on from its checkpoint).
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from megdet.launchers.ledger import changes_since_submission
from megdet.launchers.requeue import is_in_own_job, requeue_own_job
from megdet.planning.plan import Plan
from megdet.runs.failure import record_failure, start_log
from megdet.training.attempt import Attempt
from megdet.training.distributed import Ranks
from megdet.training.stop_signals import StopSignals


@dataclass(frozen=True)
class SubmittedJob:
    """The job that a run was submitted in, as the launchers know it (`JobEnvironment`)."""

    run: Path

    @property
    def can_requeue(self) -> bool:
        return is_in_own_job(self.run)

    def edits_since_submission(self) -> list[str]:
        return changes_since_submission(self.run)

    def requeue(self) -> bool:
        return requeue_own_job(self.run)


def main() -> int:
    """Run one rank as the command line and the launcher's environment say."""
    parser = argparse.ArgumentParser(prog="python -m megdet.run", description="Runs one rank of a planned run.")
    parser.add_argument("plan", type=Path, help="the run's plan.json; its folder is the run's")
    path: Path = parser.parse_args().plan.resolve()
    ranks = Ranks.from_environment()
    start_log(path.parent, ranks.rank)
    stop = StopSignals()
    try:
        plan = Plan.from_json(path.read_text())
        plan.check_ranks(ranks.world_size)
        with ranks:
            return Attempt(plan, path.parent, ranks, stop, SubmittedJob(path.parent)).go()
    except Exception as error:
        return record_failure(path.parent, ranks.rank, error)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after an error, the process group's destructor would wait for ranks that are gone.
    os._exit(code)
