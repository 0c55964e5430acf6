"""What ended an attempt, written down by whoever of its processes sees it."""

from __future__ import annotations

import time
from dataclasses import replace

from megdet.runs.causes import NETWORK, cause_of
from megdet.runs.failure import Failure
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now

ECHO_S = 2.0
"""A rank that fails takes a moment to write down why; the others have lost their connection to it at once."""


def write_down(folder: RunFolder, failure: Failure) -> None:
    """Leave what ended a run, unless another rank was faster; who only lost its connection lets the other speak first.

    Raises LostOwnership where the folder is another attempt's, and OSError where the disk is full all the same.
    """
    folder.release_room()
    is_echo = cause_of(failure) is NETWORK
    if is_echo:
        time.sleep(ECHO_S)
    before = folder.failure()
    if before and cause_of(before) is NETWORK and not is_echo:
        folder.forget_failure()
    if folder.write_first_failure(failure):
        state = folder.state() or RunState(Status.FAILED, attempts=1, started=now())
        folder.write_state(replace(state, status=Status.FAILED, ended=now(), reason=failure.reason))
