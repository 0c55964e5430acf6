"""What the files in a run's folder say; a damaged one is a message that names it, and never another run's trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.runs.failure import LAST_LOG_LINES, Failure
from megdet.runs.run_files import CANARY, CLASSES, FAILURE, MEETING, OWNER, PLAN, STATE, SUBMISSION, WAITING, RunFiles
from megdet.runs.state import RunState

REMOVE = "remove it"
WAYS_OUT = {
    STATE: "launched again, the run goes on from its checkpoint",
    PLAN: "launched again, it is written anew",
    SUBMISSION: "cancel the run's job if it has one, and launch with sweep.on_existing=retry_failed",
}
"""What to do about a damaged file, by its name."""

T = TypeVar("T")


@dataclass(frozen=True)
class RunRecords(RunFiles):
    """The folder of one run, for readers."""

    def read_plan(self) -> dict[str, Any]:
        """plan.json as plain values. Raises UserError where it is damaged or missing, or lacks what is read of it."""
        plan = self._read(PLAN, _plan_with_all)
        if plan is None:
            raise UserError(f"{self.path} is no run folder: it has no {PLAN}; name one of runs/")
        return plan

    def state(self) -> RunState | None:
        """None where the run has not started, or where the file is damaged, which `damage` says."""
        try:
            return self._read(STATE, RunState.from_json)
        except UserError:
            return None

    def damage(self) -> str:
        """What is wrong with state.json; empty where nothing is. A launcher goes on with such a run."""
        try:
            self._read(STATE, RunState.from_json)
        except UserError as error:
            return str(error)
        return ""

    def failure(self) -> Failure | None:
        """None where nothing failed, or the file cannot be read: a failure must not hide behind another."""
        try:
            return self._read(FAILURE, Failure.from_json)
        except UserError:
            return None

    def lost_records(self, state: RunState) -> str:
        """Why a run that says that it has a result has none to show; empty where its journal is as long as it was."""
        size = self.journal.stat().st_size if self.journal.exists() else 0
        if state.journal_bytes is None or size >= state.journal_bytes:
            return ""
        return (
            f"it has {state.status}, but {self.journal} has {size} of its {state.journal_bytes} bytes; launched again, "
            "it evaluates its last epoch; where more are lost, it says what can be done"
        )

    def classes(self) -> Classes | None:
        """None before the first attempt has begun. Raises UserError where the file is damaged."""
        return self._read(CLASSES, Classes.from_json)

    def submission(self) -> dict[str, Any] | None:
        """What the launcher `launcher` noted of the job that it handed the run to; None where none was.

        Raises UserError where the file is damaged.
        """

        def parse(values: Any) -> dict[str, Any]:
            return {**values, "launcher": str(values["launcher"])}

        return self._read(SUBMISSION, parse)

    def read_canary(self, parse: Callable[[Any], T]) -> T | None:
        """What a canary measured; None where it has not come so far. Raises UserError where damaged."""
        return self._read(CANARY, parse)

    def waiting(self) -> dict[str, Any] | None:
        """What a launcher noted of the runs that wait for a canary. Raises UserError where it is damaged."""
        return self._read(WAITING, lambda values: dict(values))

    def read_meeting(self) -> dict[str, Any] | None:
        """Where the ranks of an attempt meet; None where none has said it."""
        return self._read(MEETING, lambda values: dict(values))

    def last_log_lines(self, rank: int) -> tuple[str, ...]:
        return last_lines(self.log(rank))

    @property
    def has_begun(self) -> bool:
        """Whether the run has made steps, or taken over those of another: it goes on from a checkpoint of its own."""
        state = self.state()
        there = self.checkpoint.exists() or self.previous_checkpoint.exists()
        return there or (state is not None and state.step > 0)

    def check_checkpoint_is_there(self) -> None:
        """Raises UserError where the run has made steps and none of its checkpoints is left: it would begin anew."""
        state = self.state()
        there = self.checkpoint.exists() or self.previous_checkpoint.exists()
        if state is not None and state.step > 0 and not there:
            raise UserError(
                f"{self.checkpoint} is missing, and the run has made {state.step} steps: put it back from a copy, or "
                "begin the run anew with sweep.on_existing=force"
            )

    def current_owner(self) -> str | None:
        """The attempt that owns the folder; None where nobody ever claimed it."""
        try:
            return self._read(OWNER, lambda values: str(values["attempt"]))
        except UserError:
            return None

    def _read(self, name: str, parse: Callable[[Any], T]) -> T | None:
        path = self.path / name
        try:
            return parse(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}); {WAYS_OUT.get(name, REMOVE)}") from None


_IN_A_PLAN: dict[str, tuple[type, ...]] = {
    "run_id": (str,), "experiment_id": (str,), "name": (str,), "commit": (str,), "dirty": (bool,), "notes": (list,),
    "layout gpus": (int,), "schedule epochs": (int,), "schedule steps_per_epoch": (int,), "config seed": (int,),
    "config batch": (int,), "config bn_size": (int,), "config lr": (dict,), "config model name": (str,),
    "config data name": (str,), "config tracking experiment": (str,), "config tracking enabled": (bool,),
    "config tracking uri": (str, type(None)), "config cluster max_retries": (int,),
}  # fmt: skip
"""What readers of run folders count on, and its kinds."""


def _plan_with_all(values: Any) -> dict[str, Any]:
    """A plan's values. Raises KeyError, TypeError or ValueError where one is missing or none that readers count on."""
    for place, kinds in _IN_A_PLAN.items():
        found = values
        for key in place.split():
            found = found[key]
        if type(found) not in kinds:
            raise ValueError(f"'{place.replace(' ', '.')}' is {found!r:.40}, which it cannot be")
    scale = values["config"]["lr"].get("scale", 1.0)  # older plans have none
    if type(scale) not in (int, float):
        raise ValueError(f"'config.lr.scale' is {scale!r:.40}, which it cannot be")
    return dict(values)


def last_lines(path: Path, number: int = LAST_LOG_LINES) -> tuple[str, ...]:
    """The last lines of a log; () where there is none."""
    try:
        return tuple(path.read_text(errors="replace").splitlines()[-number:])
    except OSError:
        return ()
