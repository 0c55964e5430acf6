"""The record of a run in its folder: metrics.jsonl, what happened, and state.json, where it stands.

Both survive a crash at any moment: a journal line counts once its newline is written, and the state is
replaced whole.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from megdet.errors import UserError

PLAN = "plan.json"
JOURNAL = "metrics.jsonl"
STATE = "state.json"
BN_STUDY = "bn_study.json"
GRADIENT_VARIANCE = "gradient_variance.json"

COCO_METRICS = (
    "mmAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "mmAR", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""In the order of pycocotools' `stats`; mmAP is AP and mmAR is AR@100 at IoU .50:.05:.95."""

State = Literal["running", "finished", "diverged", "failed", "interrupted"]

KINDS = ("step", "epoch", "event")
"""Of the journal's lines."""


@dataclass(frozen=True)
class RunState:
    """Where a run stands. Times in seconds are summed over its attempts, without the gaps between them."""

    state: State
    attempts: int
    """1-based; above 1 the run has been resumed."""
    started: str
    """ISO 8601 with time zone, of the first attempt."""
    ended: str | None = None
    train_s: float = 0.0
    eval_s: float = 0.0
    step: int = 0
    """Optimizer steps done."""
    reason: str | None = None
    """One line on why the run diverged, failed or was interrupted."""

    def write(self, folder: Path) -> None:
        """Replace the folder's state.json."""
        replace_file(folder / STATE, json.dumps(_strict(asdict(self)), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunState | None:
        """The folder's state; None where the run has not started."""
        try:
            text = (folder / STATE).read_text()
        except FileNotFoundError:
            return None
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise UserError(f"{folder / STATE} is damaged ({error}); move the run folder away") from None


class Journal:
    """Appends one run's metrics; one writer at a time (rank 0).

    Values are numbers, strings, None, or lists of these. NaN and infinities become null, so that every
    line is strict JSON. Each line gets `kind` and `time` (Unix seconds).
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder's journal; a line torn by a crash is cut off."""
        self.path = folder / JOURNAL
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)
        self._file = self.path.open("a", encoding="utf-8")

    def step(self, step: int, *, epoch: float, **values: float | None) -> None:
        """After optimizer step `step` (1-based), `epoch` epochs into training."""
        self._append({"kind": "step", "step": step, "epoch": epoch, **values})

    def epoch(self, epoch: int, *, step: int, **values: float | None) -> None:
        """After `epoch` epochs (1-based), at optimizer step `step`."""
        self._append({"kind": "epoch", "epoch": epoch, "step": step, **values})

    def event(self, event: str, *, step: int, **values: Any) -> None:
        """Something that happened after `step` steps: started, resumed, bad_image, diverged, ..."""
        self._append({"kind": "event", "event": event, "step": step, **values})

    def drop_after(self, step: int) -> None:
        """Forget the lines beyond `step`, to be repeated from a checkpoint made there."""
        kept = [line for line in read_journal(self.path.parent) if line["step"] <= step]
        self._file.close()
        replace_file(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(_strict({**line, "time": round(time.time(), 3)}), allow_nan=False) + "\n")
        self._file.flush()


def read_journal(folder: Path, *, kinds: Sequence[str] = KINDS) -> list[dict[str, Any]]:
    """The journal's lines, oldest first; [] before the run has started. A torn last line is left out.

    Without `step` among the `kinds` the lines on steps, thousands, are not even parsed. UserError where a line is
    damaged, as far as that is seen: whatever the kinds, each line must begin as one of KINDS.
    """
    path = folder / JOURNAL
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    wanted, known = (tuple(f'{{"kind": "{kind}"' for kind in these) for these in (kinds, KINDS))
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            if line.startswith(wanted):
                lines.append(json.loads(line))
            elif not line.startswith(known):
                raise ValueError
        except ValueError:
            raise UserError(f"{path}, line {number} is damaged; mend or remove it") from None
    return lines


def run_folders(runs: Path) -> list[Path]:
    """The run folders (those with a plan) in `runs`, by name. UserError where there is none."""
    folders = sorted(path.parent for path in runs.glob(f"*/{PLAN}"))
    if folders:
        return folders
    if runs.is_file():
        way_out = f"as an MLflow database it is sqlite:///{runs}" if runs.suffix == ".db" else "name a folder of runs"
        raise UserError(f"{runs} is no folder; {way_out}")
    missing = f"has no run (a folder with a {PLAN})" if runs.is_dir() else "does not exist"
    raise UserError(f"{runs} {missing}; name another folder, or start a run with `python launch.py`")


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _strict(value: Any) -> Any:
    """`value` with None for the numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
