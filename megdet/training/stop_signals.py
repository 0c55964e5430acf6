"""Stop signals: a rank notes them instead of dying of them."""

from __future__ import annotations

import os
import signal
from types import FrameType


class StopSignals:
    """Notes SIGTERM, SIGINT and SIGUSR2 instead of dying of them, so that a step is finished and a checkpoint written.

    SIGUSR2 is a cluster's: the run has to make room, or its time is up, and should go on later by itself.
    """

    # NCCL may catch USR1, so it is USR2 that the cluster is asked for.
    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

    def __init__(self) -> None:
        self._requested = self._requeue = False
        self._pid = os.getpid()
        for number in self.NUMBERS:
            signal.signal(number, self._note)
        # A launcher may have held them back until now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.NUMBERS)

    def requested(self) -> bool:
        """Whether this rank was asked to stop."""
        return self._requested

    def requeue_wanted(self) -> bool:
        """Whether this rank was asked to stop and to go on later."""
        return self._requeue

    def ignore_no_more(self) -> None:
        """All is saved: the next SIGTERM may end this process."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A forked data worker has inherited this handler. A cluster's signals reach it too, and its rank needs it
            # for the step that is to be finished; it ends with its rank.
            return
        self._requested = True
        self._requeue = self._requeue or number == signal.SIGUSR2
