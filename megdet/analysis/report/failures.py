"""Why runs came to no result, by cause, with what to do: what `megdet why` prints."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pandas as pd

from megdet.analysis.frames import RunFrames
from megdet.launchers.causes import Failure, group, read_failure
from megdet.launchers.job_states import JobState
from megdet.launchers.ledger import Submission
from megdet.launchers.run_status import RunStatus, Status, states_of_jobs
from megdet.runs.failure import FAILURE

ENDED = ("failed", "diverged", "interrupted")
NONE = "<p>No run has failed, diverged or been interrupted.</p>"


def failures_html(frames: RunFrames) -> str:
    """A part for each cause: its runs in their own words, what to do, and the last log lines of one of them."""
    return "\n".join(_part(alike) for alike in group(_failures(frames))) or NONE


def _failures(frames: RunFrames) -> list[Failure]:
    states = states_of_jobs(Path(folder) for folder in frames.runs["folder"] if folder)
    with TemporaryDirectory() as nothing:
        found = [_failure(frames, index, run, states, Path(nothing)) for index, run in frames.runs.iterrows()]
    return [failure for failure in found if failure]


def _failure(
    frames: RunFrames, index: int, run: pd.Series, states: Mapping[str, JobState], nothing: Path
) -> Failure | None:
    folder = Path(run["folder"])
    if not run["folder"]:
        if run["status"] not in ENDED:
            return None  # what MLflow has of it is not worth the request
        files = frames.files(index, FAILURE)
        folder = files[0].parent if files else nothing
    job = Submission.read(folder)
    status = RunStatus(cast(Status, run["status"]), run["reason"])
    failure = read_failure(folder, status, states.get(job.job) if job else None)
    return replace(failure, run=run["run_id"]) if failure else None


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
