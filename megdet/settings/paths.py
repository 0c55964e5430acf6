"""Paths as users write them: `~` means a home, and what no file system takes is said before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from megdet.errors import UserError
from megdet.settings.rules import Text, shown

MOST_BYTES_OF_A_NAME = 255
MOST_BYTES = 4095


@dataclass(frozen=True)
class PathText:
    """The rule of a setting that names a file or a folder, whether or not it is there."""

    def instead_of(self, value: object) -> str | None:
        return Text().instead_of(value) or fault_of_path(str(value))


def fault_of_path(text: str) -> str | None:
    """What to use instead of a path that there can never be; None where there could be one."""
    if text.startswith("~") and os.path.expanduser(text) == text:
        return f"another path: there is no home of {shown(text.partition('/')[0])} on this machine"
    if "\0" in text:
        return "a path without NUL"
    content = os.fsencode(text)
    if len(content) > MOST_BYTES or any(len(name) > MOST_BYTES_OF_A_NAME for name in content.split(b"/")):
        return f"a path of at most {MOST_BYTES} bytes, and {MOST_BYTES_OF_A_NAME} in each name"
    return None


def expanded(text: str) -> Path:
    """The path, with `~` spelled out."""
    return Path(os.path.expanduser(text))


@contextmanager
def writing_to(out: Path, *, way_out: str = "name another folder") -> Iterator[None]:
    """Context for writing to `--out`: failures become UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}); {way_out}") from None
