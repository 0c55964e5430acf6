"""Files that survive a crash at any moment."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` so that a crash leaves the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(text.encode())


def replace_file_soon(path: Path, text: str) -> None:
    """As `replace_file`, for what is of no use after a loss of power."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, before: Callable[[], None] | None = None) -> Iterator[BinaryIO]:
    """A file to write what shall be at `path`: it gets there whole, at the end, and then survives a loss of power.

    The temporary file has a name of its own, so that two writers never share one. `before()` is called when it is
    whole and has not replaced anything yet.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before:
            before()
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def forget_unfinished(path: Path) -> None:
    """Remove what writers of `path` that were killed have left beside it; for who alone writes it."""
    for left_over in path.parent.glob(f".{escape(path.name)}.*"):
        left_over.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def short_sha256(path: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def json_text(values: Mapping[str, Any]) -> str:
    """`values` as the text of a JSON file; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(strict(values), indent=2) + "\n"


def strict(value: Any) -> Any:
    """`value` with None for the numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
