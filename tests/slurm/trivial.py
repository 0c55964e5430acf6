"""A rank in place of Python on the nodes, whose training takes no time: it claims its folder and records a result.

Rank 0 of an attempt does what the real one does to the folder; `executions.txt` beside it counts who came.
"""

from __future__ import annotations

import os
from pathlib import Path

from megdet.launchers.slurm.payload import Payload
from megdet.planning.plan import Plan
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now
from tests.runs.fabricate import write_epoch

EXECUTIONS = "executions.txt"


def main() -> None:
    """Be the one rank of the array element that Slurm started."""
    here = os.environ
    array, element = here.get("SLURM_ARRAY_JOB_ID", here["SLURM_JOB_ID"]), here.get("SLURM_ARRAY_TASK_ID")
    payload = Payload.read(Path(here["MEGDET_TRIVIAL"]))
    job = array if element is None else f"{array}_{element}"
    folder = payload.runs[int(element or 0)].claim(f"{payload.folder.name}:{job}.{here.get('SLURM_RESTART_COUNT', 0)}")
    payload.note_job(int(element or 0), array=array)
    with (folder.path / EXECUTIONS).open("a") as file:
        file.write(f"{job}\n")
    plan, started = Plan.from_json(folder.plan.read_text()), now()
    with Journal(folder) as journal:
        journal.event("started", step=0, attempt=1)
        for epoch in range(1, plan.schedule.epochs + 1):
            write_epoch(journal, plan, epoch, mmAP=10 + plan.config.seed / 100, hours=1.0)
    steps = plan.schedule.epochs * plan.schedule.steps_per_epoch
    folder.write_state(
        RunState(Status.FINISHED, attempts=1, started=started, ended=now(), train_s=3600.0, eval_s=60.0, step=steps)
    )


if __name__ == "__main__":
    main()
