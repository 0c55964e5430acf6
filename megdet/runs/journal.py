"""The journal of a run: metrics.jsonl, a line for each event.

It survives a crash at any moment: a line counts once its newline is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from megdet.errors import UserError
from megdet.runs.files import replace_file, strict
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status

COCO_METRICS = (
    "mmAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "mmAR", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""In the order of pycocotools' `stats`; mmAP is AP and mmAR is AR@100 at IoU .50:.05:.95."""

MASK_METRICS = tuple(f"mask_{name}" for name in COCO_METRICS)
"""The same of masks, where the detector has them: `mask_mmAP` is COCO's mask AP."""
SCORES = (*COCO_METRICS, *MASK_METRICS)

OWN_COLUMNS = frozenset(
    (
        "kind", "time", "event", "step", "epoch", "lr", "loss", "grad_norm", "images_per_s", "train_s", "eval_s",
        "peak_memory_gb", "bad_images", *SCORES,
    )
)  # fmt: skip
"""What lines on steps and epochs have besides what the detector reports, whose names must be others."""

NOISE_SCALE = "noise_scale"
"""Begins the names of what lines on epochs have of the gradient noise scale, where it is measured."""

FORKED = "forked"
"""The event after the lines that were taken over from another run, which it names."""

BAD_IMAGE = "bad_image"
"""The event of a file that could not be read."""

KINDS = ("step", "epoch", "event", "system")
"""Of the journal's lines."""


class Journal:
    """Appends one run's metrics; one writer at a time (rank 0).

    Values are numbers, strings, None, or lists of these. NaN and infinities become null, so that every
    line is strict JSON. Each line gets `kind` and `time` (Unix seconds).
    """

    def __init__(self, folder: RunFolder) -> None:
        """Open the journal of a folder that the writer owns; a line torn by a crash is cut off."""
        folder.check_owner()
        self._folder = folder
        self.path = folder.journal
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self.path, whole)
        self._file = self.path.open("a", encoding="utf-8")

    def step(self, step: int, *, epoch: float, **values: float | None) -> None:
        """After optimizer step `step` (1-based), `epoch` epochs into training."""
        self._append({"kind": "step", "step": step, "epoch": epoch, **values})

    def system(self, step: int, **values: float) -> None:
        """How busy the machine is. Comes before the line on the same step, so that who sees that one sees both."""
        self._append({"kind": "system", "step": step, **values})

    def epoch(self, epoch: int, *, step: int, **values: float | None) -> None:
        """After `epoch` epochs (1-based), at step `step`. All lines up to here then survive a loss of power."""
        self._append({"kind": "epoch", "epoch": epoch, "step": step, **values})
        self.sync()

    def event(self, event: str, *, step: int, **values: Any) -> None:
        """Something that happened after `step` steps: started, resumed, bad_image, diverged, ..."""
        self._append({"kind": "event", "event": event, "step": step, **values})

    def drop_after(self, step: int) -> None:
        """Forget the lines beyond `step`, to be repeated from a checkpoint made there."""
        self._folder.check_owner()
        kept: dict[object, dict[str, Any]] = {}
        for number, line in enumerate(read_journal(self._folder)):
            if line["step"] <= step:
                # Each step and each epoch counts once, whatever has happened to the file.
                kept.setdefault(number if line["kind"] == "event" else (line["kind"], line["step"]), line)
        self._file.close()
        replace_file(self.path, text_of(kept.values()))
        self._file = self.path.open("a", encoding="utf-8")

    def sync(self) -> int:
        """Make all lines survive a loss of power; the journal's size in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._folder.check_owner()
        self._file.write(text_of([line]))
        self._file.flush()


def text_of(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as the journal has them; those without a `time` are of now."""
    now = round(time.time(), 3)
    return "".join(
        json.dumps(strict({**line, "time": line.get("time", now)}), allow_nan=False) + "\n" for line in lines
    )


def bad_images_in(lines: Iterable[Mapping[str, Any]], step: int) -> dict[str, str]:
    """The files that could not be read up to a step, with the reasons, by a journal's lines."""
    return {
        line["file"]: line["reason"]
        for line in lines
        if line["kind"] == "event" and line["event"] == BAD_IMAGE and line["step"] <= step
    }


def read_journal(folder: RunFolder, *, kinds: Sequence[str] = KINDS) -> list[dict[str, Any]]:
    """The journal's lines, oldest first; [] before the run has started. A torn last line is left out.

    Without `step` among the `kinds` the lines on steps, thousands, are not even parsed. UserError where a line is
    damaged, as far as that is seen: whatever the kinds, each line must begin as one of KINDS.
    """
    path = folder.journal
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    wanted, known = (tuple(map(_beginning, these)) for these in (kinds, KINDS))
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            if line.startswith(wanted):
                lines.append(_parsed(line))
            elif not line.startswith(known):
                raise ValueError
        except (ValueError, KeyError, RecursionError):
            raise UserError(f"{path}, line {number} is damaged; mend or remove it") from None
    return lines


def _beginning(kind: str) -> str:
    return f'{{"kind": "{kind}"'


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
_NUMBERS = {int, float, type(None), str}


def _parsed(text: str) -> dict[str, Any]:
    """A line of a known kind. Raises ValueError or KeyError where it is not as `Journal` writes one."""
    line: dict[str, Any] = _decode(text)
    kind, kinds = line["kind"], [type(value) for value in line.values()]
    right = kind in KINDS and type(line["step"]) is int and line["step"] >= 0 and type(line["time"]) in (int, float)
    if kind == "event":
        right &= type(line["event"]) is str and dict not in kinds and type(line.get("attempt", 1)) is int
    else:
        right &= kinds.count(str) == 1 and _NUMBERS.issuperset(kinds)  # the one text is `kind`
        right &= kind != "epoch" or type(line["epoch"]) is int
    if not right or not text.startswith(_beginning(kind)):  # another kind may come second
        raise ValueError
    return line


def state_by_journal(lines: Sequence[Mapping[str, Any]]) -> RunState | None:
    """What can be known of a run whose state.json is lost; None where its journal has no start either."""
    events = [line for line in lines if line["kind"] == "event"]
    taken_over = max((number for number, line in enumerate(events) if line["event"] == FORKED), default=-1)
    starts = [line for line in events[taken_over + 1 :] if line["event"] in ("started", "resumed")]
    if not starts:
        return None
    return RunState(
        Status.INTERRUPTED,
        attempts=max(start.get("attempt", 1) for start in starts),
        started=datetime.fromtimestamp(starts[0]["time"], UTC).isoformat(timespec="seconds"),
        step=lines[-1]["step"],
    )
