"""How programs end: what a user can write wrong, exit codes, and readers that have gone."""

from __future__ import annotations

import io
import sys
from enum import IntEnum
from typing import Any, TextIO


class UserError(ValueError):
    """A request that cannot be met; the text names the settings, the numbers and a way out.

    Entry points print the text alone (no traceback) and exit with `ExitCode.USER_ERROR`. What a user wrote stands in
    it as it is, but for characters that a terminal would act on.
    """

    def __init__(self, text: str) -> None:
        super().__init__("\n".join(printable(line) for line in text.split("\n")))


def printable(text: str) -> str:
    """The text with control characters, line ends and the like spelled out, as in `\\x1b[31m`."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class ExitCode(IntEnum):
    """Of `launch.py`, of `megdet`, and of a rank (`python -m megdet.run`)."""

    OK = 0
    """All is well. Of a rank: its run finished or diverged."""
    RUN_FAILED = 1
    """A run failed."""
    USER_ERROR = 2
    """A mistake in what was asked."""
    INTERRUPTED = 3
    """Asked to stop; the same command goes on from the checkpoint."""


def outlive_closed_pipes() -> None:
    """`... | head`: what nobody reads any more is no reason to stop a sweep, nor for a traceback.

    Makes standard output and standard error take, and drop, what is written after their reader has gone; and show a
    question mark for a character that their encoding lacks (a plus-minus sign where the locale is C)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
        setattr(sys, name, outliving_its_pipe(stream))


def outliving_its_pipe(stream: TextIO) -> TextIO:
    """The same stream, but that it takes, and drops, what is written after its reader has gone."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # captured by a test or a notebook
        return stream
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    raw = _Forgiving(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=stream.line_buffering
    )


class _Forgiving(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return len(content)
