"""A rank that kills itself in the middle of what must survive it.

    MEGDET_DEADLY='{"window": "checkpoint", "seed": 1, "record": "kills.txt"}' python -m tests.faults.deadly PLAN

A window is a stretch of code in which being killed would do the most harm. Each passage through one of its moments is
the last one with the moment's chance, chosen so that a run of twelve steps and three epochs dies some three to six
times; RECORD gets a line for each kill before it happens.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megdet import run
from megdet.runs.run_files import JOURNAL
from megdet.training import attempt, checkpoint, evaluate

WINDOWS = ("checkpoint", "journal line", "evaluation", "sync")


class Death:
    """Decides, at each moment of a window, whether it is the last one."""

    def __init__(self, window: str, seed: str, record: Path) -> None:
        self.window, self.record = window, record
        self._draw = random.Random(f"{seed} {os.environ['RANK']} {self.kills}")
        self._lock = threading.Lock()

    @property
    def kills(self) -> int:
        return self.record.read_text().count("\n") if self.record.exists() else 0

    def may_come(self, moment: str, chance: float) -> None:
        with self._lock:
            if self._draw.random() < chance:
                with self.record.open("a") as file:
                    file.write(f"{self.window}, {moment}\n")
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, chance: float) -> None:
        """Before and after each call of `owner.name`."""
        real: Callable[..., Any] = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            self.may_come(f"before {name}", chance)
            result = real(*given, **named)
            self.may_come(f"after {name}", chance)
            return result

        setattr(owner, name, call)


def arm(death: Death) -> None:
    """Make the window's moments deadly."""
    if death.window == "checkpoint":
        death.around(checkpoint._Digesting, "write", 0.0002)  # some thousand in each
        for owner, name in ((os, "fsync"), (Path, "replace")):
            death.around(owner, name, 0.005)
    elif death.window == "journal line":
        _tear_lines(death)
    elif death.window == "evaluation":
        death.around(evaluate, "_coco_rows", 0.05)  # an image
        death.around(attempt, "gather_found", 0.1)
    else:
        from mlflow import MlflowClient

        for name in ("create_run", "log_batch", "log_artifact", "set_terminated", "update_run"):
            death.around(MlflowClient, name, 0.05)


def _tear_lines(death: Death) -> None:
    """A journal's line is written in two halves."""
    opened: Callable[..., Any] = Path.open

    class Torn:
        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, line: str) -> None:
            self._file.write(line[: len(line) // 2])
            self._file.flush()
            death.may_come("half a line", 0.1)
            self._file.write(line[len(line) // 2 :])
            self._file.flush()
            death.may_come("after a line", 0.1)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    def open_torn(path: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        file = opened(path, mode, *given, **named)
        return Torn(file) if mode == "a" and path.name == JOURNAL else file

    Path.open = open_torn  # type: ignore[method-assign]


if __name__ == "__main__":
    asked = json.loads(os.environ["MEGDET_DEADLY"])
    arm(Death(asked["window"], asked["seed"], Path(asked["record"])))
    code = run.main()
    sys.stdout.flush()
    os._exit(code)
