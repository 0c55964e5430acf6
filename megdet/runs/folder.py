"""A run's folder: the only place that knows the names of its files, and who may write them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from megdet.config.locations import LAUNCH
from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.runs.failure import LAST_LOG_LINES, Failure
from megdet.runs.files import json_text, replace_file
from megdet.runs.state import RunState
from megdet.runs.status import Status

if TYPE_CHECKING:
    from megdet.planning.plan import Plan

CANARIES = ".canaries"
"""Beside the run folders: those of canaries (`megdet.runs.canary`), which are no results."""
PROBES = ".stability"
"""Beside the run folders: those of the short trainings of `megdet stability`."""
PLAN = "plan.json"
JOURNAL = "metrics.jsonl"
STATE = "state.json"
FAILURE = "failure.json"
CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint-previous.pt"
UNUSED_CHECKPOINT = "checkpoint-not-used.pt"
CLASSES = "classes.json"
OWNER = "owner.json"
LOCK = ".lock"
REPLACED = ".replaced"
"""Beside the run folders: those of runs that were begun anew."""
RESERVE = ".reserve"
RESERVE_BYTES = 1 << 18
PICTURES = "pictures"
SUBMISSION = "submission.json"
MEETING = ".meeting.json"
LAUNCHER_LOG = "log-launcher.txt"
MLFLOW_NOTE = "mlflow.json"
CANARY = "canary.json"
WAITING = "waiting.json"
BN_STUDY = "bn_study.json"
GRADIENT_VARIANCE = "gradient_variance.json"

ATTEMPT = "MEGDET_ATTEMPT"
"""Environment variable of ranks: the attempt that they are part of, as its launcher named it."""

REMOVE = "remove it"
WAYS_OUT = {
    STATE: "launched again, the run goes on from its checkpoint",
    PLAN: "launched again, it is written anew",
    SUBMISSION: "cancel the run's job if it has one, and launch with sweep.on_existing=retry_failed",
}
"""What to do about a damaged file, by its name."""

STORE = "MEGDET_STORE"
"""Environment variable of ranks on one machine: the file in which they meet."""
LISTENER = "MEGDET_LISTENER"
"""Environment variable of ranks that meet at MASTER_ADDR: the number of rank 0's open socket there; -1 for others."""
TERMINAL = "MEGDET_TERMINAL"
"""Environment variable of a rank whose standard error is copied into its log: the number of a descriptor to write to
what is not to be copied."""

T = TypeVar("T")


class LostOwnership(Exception):
    """Another attempt owns the run's folder now: this one must end without touching a file."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Reading is for everybody; writing is for the attempt that owns it (`owned_by`)."""

    path: Path
    owner: str | None = None
    """The attempt that writes through this object; None: a reader, or a tool that adds files of its own."""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def is_canary(self) -> bool:
        """Whether it is no run, but a canary of some (`megdet.runs.canary`)."""
        return self.path.parent.name == CANARIES

    @property
    def exists(self) -> bool:
        """Whether there is a run: a folder with a plan."""
        return self.plan.exists()

    @property
    def plan(self) -> Path:
        return self.path / PLAN

    @property
    def journal(self) -> Path:
        return self.path / JOURNAL

    @property
    def state_file(self) -> Path:
        return self.path / STATE

    @property
    def failure_file(self) -> Path:
        return self.path / FAILURE

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def previous_checkpoint(self) -> Path:
        """The one before the last; gone once the run has finished."""
        return self.path / PREVIOUS_CHECKPOINT

    def kept_checkpoint(self, epoch: int) -> Path:
        """The one that ended an epoch, kept for runs that go on from there."""
        return self.path / f"checkpoint-epoch{epoch:02}.pt"

    @property
    def lock(self) -> Path:
        """Held by a launcher on this machine, and by its ranks."""
        return self.path / LOCK

    @property
    def pictures(self) -> Path:
        return self.path / PICTURES

    @property
    def beats(self) -> Path:
        """The ranks' signs of life."""
        return self.path / ".beats"

    @property
    def submission_file(self) -> Path:
        return self.path / SUBMISSION

    @property
    def meeting(self) -> Path:
        """Where the ranks of the present attempt find rank 0."""
        return self.path / MEETING

    @property
    def launcher_log(self) -> Path:
        """What the launcher of this one run said, where many run side by side."""
        return self.path / LAUNCHER_LOG

    def log(self, rank: int) -> Path:
        return self.path / f"log-rank{rank}.txt"

    def logs(self) -> list[Path]:
        return sorted(self.path.glob("log-rank*.txt"))

    # Reading

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
            "it evaluates what is missing"
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

    def note_waiting(self, values: Mapping[str, Any]) -> None:
        """Launchers note it before a canary's job is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / WAITING, json_text(values))

    def read_meeting(self) -> dict[str, Any] | None:
        """Where the ranks of an attempt meet; None where none has said it."""
        return self._read(MEETING, lambda values: dict(values))

    def last_log_lines(self, rank: int) -> tuple[str, ...]:
        return last_lines(self.log(rank))

    def read_study(self, name: str) -> Any:
        """What a study (BN_STUDY, GRADIENT_VARIANCE) left; None where it did not. Raises UserError where damaged."""
        return self._read(name, lambda values: values)

    def write_study(self, name: str, found: Mapping[str, Any]) -> None:
        """Studies add files of their own beside the attempt's, which they leave alone."""
        replace_file(self.path / name, json_text(found))

    def note_submission(self, launcher: str, values: Mapping[str, Any]) -> None:
        """Launchers note jobs, and what became of them, beside the attempt that runs."""
        replace_file(self.submission_file, json_text({"launcher": launcher, **values}))

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

    # Owning and writing

    def owned_by(self, attempt: str) -> RunFolder:
        """The folder as `attempt` writes it. The attempt must have claimed it, or its launcher for it."""
        return RunFolder(self.path, attempt)

    def claim(self, attempt: str) -> RunFolder:
        """Make `attempt` the folder's owner; whoever owned it cannot write any more. The folder is made if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / OWNER, json_text({"attempt": attempt}))
        owned = self.owned_by(attempt)
        owned._reopen()
        return owned

    def _reopen(self) -> None:
        """A result whose records are lost is none any more: the run goes on."""
        state = self.state()
        lost = self.lost_records(state) if state and state.status.is_result else ""
        if state and lost:
            self.write_state(replace(state, status=Status.INTERRUPTED, reason=lost, journal_bytes=None))

    def current_owner(self) -> str | None:
        """The attempt that owns the folder; None where nobody ever claimed it."""
        try:
            return self._read(OWNER, lambda values: str(values["attempt"]))
        except UserError:
            return None

    def check_owner(self) -> None:
        """Raises LostOwnership where another attempt owns the folder by now; asked before every write."""
        current = self.current_owner()
        if self.owner is None or current != self.owner:
            raise LostOwnership(f"{self.path} belongs to attempt {current}, not to {self.owner}")

    def write_canary(self, values: Mapping[str, Any]) -> None:
        self.check_owner()
        replace_file(self.path / CANARY, json_text(values))

    def write_plan(self, text: str) -> None:
        self.check_owner()
        replace_file(self.plan, text)

    def write_state(self, state: RunState) -> None:
        self.check_owner()
        replace_file(self.state_file, json_text(state.to_json()))

    def write_classes(self, classes: Classes) -> None:
        self.check_owner()
        replace_file(self.path / CLASSES, json_text(classes.to_json()))

    def write_failure(self, failure: Failure) -> None:
        """Replace whatever failure there is."""
        self.check_owner()
        replace_file(self.failure_file, json_text(failure.to_json()))

    def write_first_failure(self, failure: Failure) -> bool:
        """Write the failure unless there is one: ranks that fail later only tell that the first is gone."""
        self.check_owner()
        complete = self.path / f".{FAILURE}.rank{failure.rank}"
        replace_file(complete, json_text(failure.to_json()))
        try:
            os.link(complete, self.failure_file)  # fails where the name is taken, and is never seen half-written
        except FileExistsError:
            return False
        except OSError:  # a file system without links: the first to fail is not told from the second
            complete.replace(self.failure_file)
        finally:
            complete.unlink(missing_ok=True)
        return True

    def keep_checkpoint(self) -> None:
        """A new checkpoint is about to take the place of the last one, which becomes the previous one."""
        self.check_owner()
        if not self.checkpoint.exists():
            return
        kept = self.path / f".{PREVIOUS_CHECKPOINT}.{secrets.token_hex(4)}"
        try:
            os.link(self.checkpoint, kept)
        except OSError:  # a file system without links
            self.checkpoint.replace(kept)
        kept.replace(self.previous_checkpoint)

    def keep_checkpoint_of(self, epoch: int) -> None:
        """The last checkpoint has ended an epoch that other runs go on from: it stays under a name of its own."""
        self.check_owner()
        kept = self.kept_checkpoint(epoch)
        unfinished = self.path / f".{kept.name}.{secrets.token_hex(4)}"
        try:
            os.link(self.checkpoint, unfinished)
        except OSError:  # a file system without links
            shutil.copyfile(self.checkpoint, unfinished)
        unfinished.replace(kept)

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

    def forget_previous_checkpoint(self) -> None:
        """The run has finished: its last checkpoint is all that anybody wants."""
        self.check_owner()
        self.previous_checkpoint.unlink(missing_ok=True)

    def put_checkpoint_aside(self) -> None:
        """The last checkpoint cannot be used and must not become the previous one; it is kept for who looks into it."""
        self.check_owner()
        if self.checkpoint.exists():
            self.checkpoint.replace(self.path / UNUSED_CHECKPOINT)

    def write_meeting(self, values: Mapping[str, Any]) -> None:
        self.check_owner()
        replace_file(self.meeting, json_text(values))

    def reserve_room(self) -> None:
        """Keep room for the last words of an attempt that finds the disk full."""
        self.check_owner()
        if not (self.path / RESERVE).exists():
            replace_file(self.path / RESERVE, secrets.token_hex(RESERVE_BYTES // 2))

    def release_room(self) -> None:
        """The attempt is over, or needs the room."""
        self.check_owner()
        (self.path / RESERVE).unlink(missing_ok=True)

    def forget_failure(self) -> None:
        self.check_owner()
        self.failure_file.unlink(missing_ok=True)

    def forget_submission(self) -> None:
        """The run is this attempt's now, not that of a job that it was handed to before."""
        self.check_owner()
        self.submission_file.unlink(missing_ok=True)


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


def run_folder(runs_dir: str | Path, run_id: str) -> RunFolder:
    """Where a run keeps everything."""
    return RunFolder(Path(runs_dir) / run_id)


def folder_of(plan: Plan) -> RunFolder:
    """Where a plan's run keeps everything."""
    return run_folder(plan.config.runs_dir, plan.run_id)


def last_lines(path: Path, number: int = LAST_LOG_LINES) -> tuple[str, ...]:
    """The last lines of a log; () where there is none."""
    try:
        return tuple(path.read_text(errors="replace").splitlines()[-number:])
    except OSError:
        return ()


def run_folders(runs: Path) -> list[RunFolder]:
    """The run folders (those with a plan) in `runs`, by name. Raises UserError where there is none."""
    folders = [RunFolder(path.parent) for path in sorted(runs.glob(f"*/{PLAN}"))]
    if folders:
        return folders
    if runs.is_file():
        way_out = f"as an MLflow database it is sqlite:///{runs}" if runs.suffix == ".db" else "name a folder of runs"
        raise UserError(f"{runs} is no folder; {way_out}")
    missing = f"has no run (a folder with a {PLAN})" if runs.is_dir() else "does not exist"
    raise UserError(f"{runs} {missing}; name another folder, or start a run with `{LAUNCH}`")
