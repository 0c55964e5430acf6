"""Runs a part in a process of its own, for so many seconds at most."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.gpu.found import Bench, Found

PRELOADED = ["torch", "torchvision.models.detection"]
"""Loaded once; neither starts threads or touches a GPU."""
GRACE_S = 5.0
"""For a part that is told to stop."""


@dataclass
class PartResult:
    """What came of a part."""

    part: str
    found: list[Found] = field(default_factory=list)
    error: str = ""
    """The traceback, or why it did not come to its end; empty where it did."""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Ended:
    error: str


def run_part(part: str, bench: Bench, *, budget_s: float, on_found: Callable[[Found], None]) -> PartResult:
    """`measure(bench)` of the module named `part`; what it finds before it fails or its time is up is kept."""
    result, began = PartResult(part), time.monotonic()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(part, bench, sender))
    process.start()
    sender.close()
    while True:
        left_s = began + budget_s - time.monotonic()
        if not receiver.poll(max(left_s, 0.0)):
            result.error = f"stopped after its {budget_s:.0f} s; what it had not measured by then is missing"
            break
        try:
            message = receiver.recv()
        except EOFError:
            process.join()
            result.error = f"its process ended without a word, exit code {process.exitcode}"
            break
        if isinstance(message, _Ended):
            result.error = message.error
            break
        result.found.append(message)
        on_found(message)
    _end(process)
    result.seconds = time.monotonic() - began
    return result


def _work(part: str, bench: Bench, sender: Connection) -> None:
    os.setpgrp()  # what it starts ends with it
    error = ""
    try:
        for found in importlib.import_module(part).measure(bench):
            sender.send(found)
    except BaseException:
        error = traceback.format_exc()
    sender.send(_Ended(error))


def _end(process: multiprocessing.process.BaseProcess) -> None:
    assert process.pid is not None
    process.join(GRACE_S / 2)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.join(GRACE_S)
