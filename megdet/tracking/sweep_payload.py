"""What MLflow is told of a sweep: where its runs stand, a description to read first, tags, settings, files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet.errors import UserError
from megdet.runs.folder import RunFolder, run_folder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.sweep_folder import SWEEP, Sweep

SHOWN = 40
"""Runs in the description; a tag of MLflow's holds 8000 bytes."""
COMMAND_CHARACTERS = 1000
"""Of the command in the description; sweep.json has all of it."""
COUNTED = (
    Status.NEW, Status.RUNNING, Status.FINISHED, Status.DIVERGED, Status.FAILED, Status.INTERRUPTED,
)  # fmt: skip
"""What a run can say of itself."""
TAIL_BYTES = 1 << 16
"""Of a journal, where its last epoch is looked for first."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    run_id: str
    folder: RunFolder
    state: RunState | None
    """None: not started."""

    @property
    def status(self) -> Status:
        return self.state.status if self.state else Status.NEW


def runs_of(folder: Path, sweep: Sweep) -> list[SweepRun]:
    """The runs of the sweep whose folder is `folder`, in the order asked for."""
    runs_dir = folder.parents[1]
    return [_run(run_folder(runs_dir, run_id)) for run_id in sweep.run_ids]


def _run(folder: RunFolder) -> SweepRun:
    return SweepRun(folder.name, folder, folder.state())


def mlflow_status(runs: Sequence[SweepRun]) -> str:
    """MLflow's word for where the runs stand together."""
    found = {run.status for run in runs}
    if Status.RUNNING in found:
        return "RUNNING"
    if Status.INTERRUPTED in found:
        return "KILLED"
    if Status.NEW in found:
        return "SCHEDULED" if found == {Status.NEW} else "RUNNING"
    return "FAILED" if Status.FAILED in found else "FINISHED"


def sweep_run_name(sweep: Sweep) -> str:
    """The sweep's name, and the models and data sets of its runs, which tell it from one of the same name."""
    return " ".join([sweep.name, *(sweep.settings[key] for key in ("model", "data") if key in sweep.settings)])


def sweep_tags(folder: Path, sweep: Sweep, runs: Sequence[SweepRun]) -> dict[str, str]:
    """Name, ids, and how many runs there are and in which state."""
    counts = Counter(run.status for run in runs)
    facts: dict[str, object] = {
        "kind": "sweep",
        "sweep": sweep.name,
        "sweep_id": sweep.sweep_id,
        "folder": folder.resolve(),
        "command": sweep.command[:5000],
        "runs": len(runs),
        **{status: counts[status] for status in COUNTED},
        "mlflow.source.name": "launch.py",
        "mlflow.source.type": "LOCAL",
    }
    return {key: str(value) for key, value in facts.items()}


def description(sweep: Sweep, runs: Sequence[SweepRun], *, links: dict[str, str]) -> str:
    """The sweep in Markdown: counts, a table of its first runs, the command. `links`: pages of runs by run id."""
    counts = Counter(run.status for run in runs)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"{len(runs)} runs: {states}. Tables and figures of them, where there are results, are artifacts.", ""]
    lines += ["| run | status | epochs | mmAP | hours |", "|:--|:--|--:|--:|--:|"]
    for run in runs[:SHOWN]:
        name = f"[{run.run_id}]({links[run.run_id]})" if run.run_id in links else run.run_id
        lines.append(f"| {name} | {' | '.join(_cells(run))} |")
    if len(runs) > SHOWN:
        lines += ["", f"... and {len(runs) - SHOWN} more."]
    lines += ["", f"`{sweep.command[:COMMAND_CHARACTERS]}`"]
    return "\n".join(lines)


def sweep_files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The sweep's files for MLflow and the folder each goes to."""
    yield folder / SWEEP, None
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and path.suffix != ".json" and not any(part.startswith(".") for part in place.parts):
            yield path, str(place.parent) if len(place.parts) > 1 else None


def _cells(run: SweepRun) -> tuple[str, str, str, str]:
    last = _last_epoch(run.folder.journal)
    try:
        epochs = f"{last.get('epoch', 0)} of {run.folder.read_plan()['schedule']['epochs']}"
    except UserError:  # not started, or damaged: one run must not hide the others
        epochs = ""
    mmAP = last.get("mmAP")
    hours = f"{run.state.train_s / 3600:.3g}" if run.state else ""
    return run.status, epochs, "" if mmAP is None else f"{mmAP:.1f}", hours


def _last_epoch(journal: Path) -> dict[str, Any]:
    """The journal's last line on an epoch that is whole, read from its end."""
    for size in (TAIL_BYTES, None):
        try:
            with journal.open("rb") as file:
                end = file.seek(0, 2)
                file.seek(0 if size is None else max(0, end - size))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return {}
        for line in reversed(lines):
            if line.startswith(b'{"kind": "epoch"'):
                with suppress(ValueError):  # damaged, which the run's own commands say
                    found: dict[str, Any] = json.loads(line)
                    return found
    return {}
