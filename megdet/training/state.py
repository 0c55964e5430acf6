"""How far a run has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from megdet.training.divergence import LossWatch
from megdet.training.totals import EpochTotals


@dataclass
class TrainingState:
    """What changes as a run goes on, apart from weights and momenta; over all its attempts."""

    step: int = 0
    """Optimizer steps done."""
    totals: EpochTotals = field(default_factory=EpochTotals)
    """Of the epoch under way."""
    watch: LossWatch = field(default_factory=LossWatch)
    past_train_s: float = 0.0
    """Seconds of training in the epochs before the one under way."""
    steps_recorded: int = 0
    """Lines on steps that the journal has got."""
    eval_s: float = 0.0
    """Seconds of evaluation."""

    shared_s: float = 0.0
    """Seconds of training and evaluation that were spent by the run that this one was forked from."""
    gpus: int = 0
    """Those that train now; 0: not known, in checkpoints of before they were counted."""
    moved_s: float = 0.0
    """Seconds of training and evaluation before the run came to that many GPUs, with those of another run."""
    moved_gpu_s: float = 0.0
    """GPU-seconds that it had spent by then, without another run's."""

    @property
    def train_s(self) -> float:
        """Seconds of training, without evaluation."""
        return self.past_train_s + self.totals.train_s

    @property
    def gpu_s(self) -> float:
        """GPU-seconds of training and evaluation that the run has spent itself, each attempt's on its own GPUs."""
        return self.moved_gpu_s + (self.train_s + self.eval_s - self.moved_s) * self.gpus

    def go_on_with(self, gpus: int) -> None:
        """An attempt begins on that many GPUs."""
        if gpus == self.gpus:
            return
        if self.gpus:
            self.moved_gpu_s, self.moved_s = self.gpu_s, self.train_s + self.eval_s
        else:
            self.moved_s = self.shared_s
        self.gpus = gpus

    def end_epoch(self) -> None:
        """The epoch is trained and evaluated: the next one's sums begin at 0."""
        self.past_train_s = self.train_s
        self.totals = EpochTotals()
