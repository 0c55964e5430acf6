"""What each rank of a run under way does, and since when: `.beats/rankK.json`, written every few seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from megdet.runs.checked import checked
from megdet.runs.files import replace_file_soon
from megdet.runs.folder import RunFolder


@dataclass(frozen=True)
class Beat:
    """A sign of life of one rank."""

    attempt: str
    rank: int
    step: int
    """Optimizer steps done."""
    phase: str
    """What it does: `reading images`, `evaluating`, ..."""
    progress_at: float
    """Unix seconds; since then it has done nothing else."""
    limit_s: float
    """How long that may take."""
    where: str = ""
    """The line that it stands at, once it has taken longer than that."""
    waits: bool = False
    """Whether it waits for other ranks there."""


def write_beat(folder: RunFolder, beat: Beat) -> None:
    """Say that a rank is alive. Raises LostOwnership where the folder is another attempt's."""
    folder.check_owner()
    folder.beats.mkdir(exist_ok=True)
    replace_file_soon(folder.beats / f"rank{beat.rank}.json", json.dumps(asdict(beat)))


def read_beats(folder: RunFolder) -> list[tuple[float, Beat]]:
    """The beats of the attempt that owns the folder, each with the time that its file system gave it."""
    return list(_of_the_owner(folder))


def _of_the_owner(folder: RunFolder) -> Iterator[tuple[float, Beat]]:
    owner = folder.current_owner()
    for path in sorted(folder.beats.glob("rank*.json")):
        try:
            beat, seen_at = checked(Beat, json.loads(path.read_bytes())), path.stat().st_mtime
        except (OSError, ValueError):
            continue  # just being replaced, or another version's
        if beat.attempt == owner:
            yield seen_at, beat
