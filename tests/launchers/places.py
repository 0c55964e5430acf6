"""Where the contract's runs go: each launcher, with a program that stands in for the ranks.

    python -m tests.launchers.places PLACE PROGRAM PLAN...

starts runs by a launcher, in a process of its own, and ends with the launcher's exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from megdet.errors import UserError
from megdet.launchers.interface import Launcher
from megdet.launchers.local.launcher import LocalLauncher
from megdet.launchers.local.one_run import run_local
from megdet.launchers.local.parallel import ONE_RUN, ParallelLauncher
from megdet.launchers.named import LAUNCHERS
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.planning.plan import Plan
from tests.launchers import toy

PLACES: dict[str, Callable[[str], Launcher]] = {
    "local": lambda program: LocalLauncher(run=lambda plan: run_local(plan, program=(program,))),
    "local_parallel": lambda program: ParallelLauncher(one_run=(*ONE_RUN, program)),
    "slurm": lambda program: SlurmLauncher(wait=False, program=(program,)),
    "toy": lambda program: toy.ToyLauncher((program,)),
}


def register_toy() -> None:
    """What one line in `megdet.launchers.named` does for a launcher that stays."""
    LAUNCHERS[toy.NAME] = toy


def main(place: str, program: str, *plan_files: str) -> int:
    register_toy()
    plans = [Plan.from_json(Path(file).read_text()) for file in plan_files]
    try:
        return PLACES[place](program).run(plans, [], mirror=lambda plan: print(f"mirror {plan.run_id}"))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
