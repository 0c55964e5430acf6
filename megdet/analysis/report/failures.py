"""Why runs have no result, by cause, and what to do: the same as `megdet why`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from megdet.analysis.run_frames import RunFrames
from megdet.launchers.jobs import Jobs, Look
from megdet.runs.causes import Diagnosis, diagnose, group
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import FAILURE
from megdet.runs.status import Stand, Status

ENDED = ("failed", "diverged", "interrupted")
NONE = "<p>No run has failed, diverged or been interrupted.</p>"


def failures_html(frames: RunFrames) -> str:
    """A part for each cause: its runs in their own words, what to do, and the last log lines of one of them."""
    return "\n".join(_part(alike) for alike in group(_failures(frames))) or NONE


def _failures(frames: RunFrames) -> list[Diagnosis]:
    look = Jobs().look_at([RunFolder(Path(folder)) for folder in frames.runs["folder"] if folder])
    with TemporaryDirectory() as nothing:
        found = [_failure(frames, index, run, look, Path(nothing)) for index, run in frames.runs.iterrows()]
    return [failure for failure in found if failure]


def _failure(frames: RunFrames, index: int, run: pd.Series, look: Look, nothing: Path) -> Diagnosis | None:
    stand = Stand(Status(run["status"]), run["reason"])
    if run["folder"]:
        return look.diagnosis(RunFolder(Path(run["folder"])), stand)
    if run["status"] not in ENDED:
        return None  # what MLflow has of it is not worth the request
    files = frames.files(index, FAILURE)
    failure = diagnose(RunFolder(files[0].parent if files else nothing), stand)
    return replace(failure, run=run["run_id"]) if failure else None


def _part(alike: Sequence[Diagnosis]) -> str:
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
