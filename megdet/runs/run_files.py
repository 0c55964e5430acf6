"""The names of the files in a run's folder: the only place that knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class RunFiles:
    """The folder of one run, and where in it everything lies."""

    path: Path

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
