"""Ends an attempt that makes no progress, and says which rank it was and where.

A thread of each rank leaves a beat, a small file, every few seconds. A rank whose work stands still for too long looks
at the beats of the others: one that is not heard of any more was stopped or has lost its node; of those that are, one
that waits for nobody else is the cause.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import megdet
from megdet.errors import ExitCode
from megdet.runs.beats import Beat, read_beats, write_beat
from megdet.runs.failure import Failure
from megdet.runs.folder import LostOwnership, RunFolder
from megdet.runs.last_words import write_down

log = logging.getLogger("megdet")
PACKAGE = str(Path(megdet.__file__).parent)
T = TypeVar("T")

STEPS_KNOWN = 10
"""Before that many steps nobody knows how long one takes."""
TIMES_MEDIAN = 20.0
LEAST_S = 60.0
BEAT_S = 5.0
SILENT_S = 30.0
"""A rank without a beat for this long is not alive, or not to be seen."""
GRACE_S = 10.0
"""For the rank that is the cause to say so itself, and for one that has lost the folder to end by itself."""
TRAINING, READING = "in a training step", "reading images"
WAITING = ("torch/distributed/", "torch/autograd/graph.py")
"""Files of the innermost lines of a rank that waits for the others; a backward pass ends with an all-reduce."""


class Watchdog:
    """Watches one rank of an attempt, from `with` on; without it, nothing is watched."""

    def __init__(
        self, folder: RunFolder, rank: int, *, timeout_s: float, end: Callable[[int], None] = os._exit
    ) -> None:
        """`timeout_s`: the most that anything may take; a step may take 20 times the median step, but 60 s at least.

        `end` ends the process.
        """
        self._folder, self._rank, self._end = folder, rank, end
        self._timeout_s = timeout_s
        self._every_s, self._silent_s = min(BEAT_S, timeout_s / 10), min(SILENT_S, timeout_s / 2)
        self._grace_s = min(GRACE_S, timeout_s / 4)
        self._main = threading.get_ident()
        self._phase, self._step = "setting up", 0
        self._progress_at = time.monotonic()
        self._steps_s: deque[float] = deque(maxlen=101)
        self._beat_now, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beat_now.set()
        self._thread.join()

    def doing(self, phase: str) -> None:
        """Note what this rank does now; counts as progress."""
        self._progress_at = time.monotonic()
        if phase == self._phase:
            return
        self._phase = phase
        if phase not in (TRAINING, READING):
            self._beat_now.set()

    def stepped(self, step: int, seconds: float) -> None:
        """One optimizer step is done."""
        self._step = step
        self._steps_s.append(seconds)

    def reading(self, items: Iterable[T]) -> Iterator[T]:
        """The items of a loader; between them is a training step."""
        iterator = iter(items)
        while True:
            self.doing(READING)
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.doing(TRAINING)
            yield item

    @property
    def limit_s(self) -> float:
        """How long what is being done may take."""
        if self._phase not in (TRAINING, READING) or len(self._steps_s) < STEPS_KNOWN:
            return self._timeout_s
        return min(self._timeout_s, max(LEAST_S, TIMES_MEDIAN * statistics.median(list(self._steps_s))))

    def _run(self) -> None:
        lost_at: float | None = None
        looked_at = time.monotonic()
        while not self._over.is_set():
            # Where all of this process was stopped (a suspended job), it has not stood still.
            stopped_s = max(0.0, time.monotonic() - looked_at - self._silent_s)
            looked_at = time.monotonic()
            self._progress_at = min(looked_at, self._progress_at + stopped_s)
            still_s = looked_at - self._progress_at
            stack = sys._current_frames().get(self._main) if still_s > self.limit_s else None
            try:
                self._beat(stack)
                if stack:
                    self._look_around(still_s, stack)
                lost_at = None
            except LostOwnership as error:  # or not yet gained, where rank 0 is slower
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._grace_s:
                    log.error("%s", error)
                    self._end(ExitCode.INTERRUPTED)
            except OSError as error:  # a disk that is full, or a folder that is gone: training itself will say so
                log.warning("the watchdog cannot write: %s", error)
            self._beat_now.wait(self._every_s)
            self._beat_now.clear()

    def _beat(self, stack: FrameType | None) -> None:
        where, waits = _where(stack) if stack else ("", False)
        beat = Beat(
            attempt=str(self._folder.owner),
            rank=self._rank,
            step=self._step,
            phase=self._phase,
            progress_at=time.time() - (time.monotonic() - self._progress_at),
            limit_s=self.limit_s,
            where=where,
            waits=waits,
        )
        write_beat(self._folder, beat)

    def _look_around(self, still_s: float, stack: FrameType) -> None:
        """Called when this rank stands still: find the cause, and end this process when it is time."""
        beats = read_beats(self._folder)
        newest = max(seen_at for seen_at, _ in beats)
        silent = [(newest - seen_at, beat) for seen_at, beat in beats if newest - seen_at > self._silent_s]
        if silent:
            age_s, beat = min(silent, key=lambda found: found[1].rank)
            said = f"rank {beat.rank} has not been heard of for {age_s:.0f} s; it was {beat.phase}, step {beat.step}"
            return self._report(beat.rank, f"{said}: it was stopped, or its node is gone", stack)
        if any(beat.phase not in (TRAINING, READING) and not beat.where for _, beat in beats):
            return None  # one saves or scores, which may take longer, and the others wait for it
        stuck = [beat for _, beat in beats if beat.where]
        cause = min(stuck, key=lambda beat: (beat.waits, beat.progress_at, beat.rank))
        waited = still_s > self.limit_s + self._grace_s
        if not waited and (cause.rank != self._rank or (cause.waits and len(stuck) < len(beats))):
            return None
        still_s = time.time() - cause.progress_at
        said = f"rank {cause.rank} made no progress for {still_s:.0f} s {cause.phase}, step {cause.step}"
        return self._report(cause.rank, f"{said}: {cause.where}", stack)

    def _report(self, rank: int, reason: str, stack: FrameType) -> None:
        text = f"rank {self._rank} was at:\n" + "".join(traceback.format_stack(stack))
        log.error("%s\n%s", reason, text)
        write_down(self._folder, Failure.of_hang(rank, reason, stack=text, log=self._folder.last_log_lines(rank)))
        self._end(ExitCode.RUN_FAILED)


def _where(stack: FrameType) -> tuple[str, bool]:
    """The innermost line of ours, for a reader; and whether the rank waits for others there."""
    frames = traceback.extract_stack(stack)
    ours = [frame for frame in frames if PACKAGE in frame.filename] or frames[-1:]
    waits = any(place in frame.filename for place in WAITING for frame in frames[-4:])
    file = ours[-1].filename.removeprefix(PACKAGE).lstrip(os.sep)
    return f"{file}:{ours[-1].lineno} in {ours[-1].name}", waits
