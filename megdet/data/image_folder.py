"""The sizes of image files, from one listing of each folder instead of a call for each file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet.data import cache

KEPT_FROM_FILES = 2000
"""Smaller folders are listed anew each time."""
LISTING_VERSION = 1
ABSENT = -1


def file_sizes(folder: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """int64 [n]: bytes of each file; ABSENT where there is none, or something else than a file.

    Listings of large folders are kept as long as no file in them is added, removed or renamed. A file that is written
    over in place does not change its folder, and is seen when the folder is listed the next time.
    """
    folders = sorted({name.rpartition("/")[0] for name in names})
    listed = _listing(folder, folders)
    return np.array([listed.get(name, ABSENT) for name in names], dtype=np.int64)


def _listing(folder: Path, below: Sequence[str]) -> dict[str, int]:
    sources = [folder / name for name in below]
    if not sources:
        return {}
    try:
        read_from = cache.signature(*sources)
    except OSError:  # one of them is missing
        return _list(folder, below)
    kept = cache.load("folder", sources, LISTING_VERSION)
    if kept is not None:
        return dict(zip(cache.parted(kept["names"]), kept["sizes"].tolist(), strict=True))
    listed = _list(folder, below)
    if len(listed) >= KEPT_FROM_FILES:
        sizes = np.array(list(listed.values()), dtype=np.int64)
        arrays: cache.Arrays = {"names": cache.joined(list(listed)), "sizes": sizes}
        cache.store("folder", sources, LISTING_VERSION, arrays, read_from=read_from)
    return listed


def _list(folder: Path, below: Sequence[str]) -> dict[str, int]:
    listed: dict[str, int] = {}
    for name in below:
        prefix = f"{name}/" if name else ""
        with contextlib.suppress(OSError), os.scandir(folder / name) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # a dead link
                    if entry.is_file():
                        listed[prefix + entry.name] = entry.stat().st_size
    return listed
