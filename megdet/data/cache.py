"""The cache of large files, so that the next plan and the ranks need not read them again.

An entry counts as long as its source has the size and time of change that it had. A source that changed only just now
is not kept: it might change again within the clock's tick, which nobody could see.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "MEGDET_CACHE"
"""Environment variable: another folder than megdet in the user's cache folder; empty: nothing is kept."""
SETTLED_NS = 2_000_000_000
"""So long ago a source must have changed last."""

Arrays = Mapping[str, NDArray[Any]]
Signature = list[list[int]]


def signature(*sources: Path) -> Signature:
    """Size and time of change of files and folders. Raises OSError."""
    return [[status.st_size, status.st_mtime_ns] for status in map(os.stat, sources)]


def load(kind: str, sources: Sequence[Path], version: int) -> dict[str, NDArray[Any]] | None:
    """The cached arrays of `sources` as they are now; None if there are none, or they are unreadable."""
    path = _path(kind, sources)
    if path is None:
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        of = arrays.pop("of").tobytes().decode()
        return arrays if of == _of(sources, version, signature(*sources)) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def store(kind: str, sources: Sequence[Path], version: int, arrays: Arrays, *, read_from: Signature) -> None:
    """Keep arrays that were read while the sources had the signature `read_from`; nothing where that cannot be."""
    path = _path(kind, sources)
    newest = max(changed for _, changed in read_from)
    if path is None or time.time_ns() - newest < SETTLED_NS:
        return
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        if signature(*sources) != read_from:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, of=joined([_of(sources, version, read_from)]), **arrays)
        partial.replace(path)
    except OSError:  # no room, no right: the next plan reads again
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def joined(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts without NUL as one array."""
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), dtype=np.uint8)


def parted(array: NDArray[Any]) -> tuple[str, ...]:
    """The texts of `joined`; at least one."""
    return tuple(array.tobytes().decode(errors="surrogateescape").split("\0"))


def _of(sources: Sequence[Path], version: int, read_from: Signature) -> str:
    return json.dumps([version, [str(source.absolute()) for source in sources], read_from])


def _path(kind: str, sources: Sequence[Path]) -> Path | None:
    """One entry for the same sources, whatever they hold: a newer one takes its place."""
    chosen = os.environ.get(FOLDER)
    if chosen == "":
        return None
    try:
        folder = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "megdet"
    except RuntimeError:  # no home
        return None
    name = hashlib.sha256("\0".join(str(source.absolute()) for source in sources).encode()).hexdigest()[:24]
    return folder / f"{kind}-{name}.npz"
