"""One rank of one run.

`python -m megdet.run runs/<run_id>/plan.json` is all that a launcher starts, once per GPU. Exit codes: 0 finished or
diverged, 1 failed, 2 a mistake in what was asked, 3 interrupted (started again, it goes on from its checkpoint).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from megdet.planning.plan import Plan
from megdet.runs.failure import record_failure, start_log
from megdet.training.attempt import Attempt
from megdet.training.distributed import Ranks
from megdet.training.stop_signals import StopSignals


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
            return Attempt(plan, path.parent, ranks, stop).go()
    except Exception as error:
        return record_failure(path.parent, ranks.rank, error)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after an error, the process group's destructor would wait for ranks that are gone.
    os._exit(code)
