"""Why runs came to no result, by cause, with what to do: what `megdet why` prints."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from analysis.runs import RunRecord
from megdet.failures import Failure, group, read_failure
from megdet.launchers.ledger import Submission
from megdet.launchers.run_status import RunStatus, Status, run_status, states_of_jobs
from megdet.outcome import FAILURE

ENDED = ("failed", "diverged", "interrupted")
NONE = "<p>No run has failed, diverged or been interrupted.</p>"


def failures_html(runs: Sequence[RunRecord]) -> str:
    """A part for each cause: its runs in their own words, what to do, and the last log lines of one of them."""
    return "\n".join(_part(alike) for alike in group(_failures(runs))) or NONE


def _failures(runs: Sequence[RunRecord]) -> list[Failure]:
    here = {run.run_id: run.folder for run in runs if run.folder}
    states = states_of_jobs(here.values())
    found: list[Failure | None] = []
    for folder in here.values():
        job = Submission.read(folder)
        found.append(read_failure(folder, run_status(folder, states), states.get(job.job) if job else None))
    elsewhere = [run for run in runs if not run.folder and run.state in ENDED]
    with TemporaryDirectory() as nothing:
        for run in elsewhere:
            files = run.files(FAILURE)
            status = RunStatus(cast(Status, run.state), run.reason)
            failure = read_failure(files[0].parent if files else Path(nothing), status)
            found.append(replace(failure, run=run.run_id) if failure else None)
    return [failure for failure in found if failure]


def _part(alike: Sequence[Failure]) -> str:
    cause = alike[0].cause
    heading = f"{cause.name}: {len(alike)} {'run' if len(alike) == 1 else 'runs'}"
    lines = [f"<h3>{html.escape(heading)}</h3>", "<ul>"]
    for failure in alike:
        rank = "" if failure.rank is None else f" (rank {failure.rank})"
        reason = f": {html.escape(failure.reason)}" if failure.reason else ""
        lines.append(f"<li><strong>{html.escape(failure.run)}</strong>{rank}{reason}</li>")
    lines += ["</ul>", f"<p>What to do: {html.escape(cause.advice)}</p>"]
    logged = next((failure for failure in alike if failure.log), None)
    if logged:
        log = html.escape("\n".join(logged.log))
        lines.append(
            f"<details><summary>last log lines of {html.escape(logged.run)}</summary><pre>{log}</pre></details>"
        )
    return "\n".join(lines)
