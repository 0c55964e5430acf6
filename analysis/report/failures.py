"""Why runs of a folder came to no result: their own words and the last lines that they logged."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis.runs import RunRecord

FAILED = ("failed", "diverged", "interrupted")


def failures_html(folder: Path, runs: Sequence[RunRecord]) -> str:
    """A paragraph for each run without a result; of those that failed, the last lines of the log, to be unfolded."""
    failed = [run for state in FAILED for run in runs if run.state == state]
    if not failed:
        return "<p>No run has failed, diverged or been interrupted.</p>"
    return "\n".join(_paragraph(folder / run.run_id, run) for run in failed)


def _paragraph(folder: Path, run: RunRecord) -> str:
    written: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        written = json.loads((folder / "failure.json").read_text())
    rank = f", rank {written['rank']}" if written.get("rank") is not None else ""
    reason = run.reason or str(written.get("reason") or "it did not say why")
    text = f"<p><strong>{html.escape(run.run_id)}</strong> ({run.state}{rank}): {html.escape(reason)}</p>"
    log = written.get("log") or []
    if log:
        lines = html.escape("\n".join(map(str, log)))
        text += f"\n<details><summary>last lines of its log</summary><pre>{lines}</pre></details>"
    return text
