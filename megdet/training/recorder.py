"""The records of a run, written by rank 0: journal, state, and their MLflow mirror."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from megdet.runs.folder import RunFolder
from megdet.runs.journal import BAD_IMAGE, Journal, bad_images_in, read_journal, state_by_journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now
from megdet.tracking.mirror import Mirror
from megdet.training.noise_scale import columns
from megdet.training.state import TrainingState
from megdet.training.system_metrics import SystemMetrics
from megdet.training.totals import Step

log = logging.getLogger("megdet")


class Recorder:
    """The records of one attempt; used by rank 0 alone."""

    def __init__(
        self, folder: RunFolder, *, name: str, step: int, mirror: Mirror | None, system: SystemMetrics | None = None
    ) -> None:
        """`name` is for people. `step` is where the attempt's checkpoint stands; lines beyond it are written again."""
        self.folder, self.name = folder, name
        folder.forget_failure()
        folder.reserve_room()
        before = folder.state() or state_by_journal(read_journal(folder))
        self._journal = Journal(folder)
        self._journal.drop_after(step)
        self._state = RunState(
            Status.RUNNING,
            attempts=before.attempts + 1 if before else 1,
            started=before.started if before else now(),
            step=step,
        )
        self._bad_images = set(bad_images_in(read_journal(folder), step))
        self._mirror, self._system = mirror, system

    def started(self, training: TrainingState, *, made_from: Mapping[str, str | bool]) -> None:
        """The first step of the attempt is about to be made. `made_from`: its code, data, weights and device."""
        event = "resumed" if training.step else "started"
        self._journal.event(event, step=training.step, attempt=self._state.attempts, **made_from)
        self._move_to(Status.RUNNING, training)

    def note(self, event: str, *, step: int, **values: str) -> None:
        """Record a remark for readers of the journal."""
        log.info("%s: %s %s", self.name, event.replace("_", " "), " ".join(values.values()))
        self._journal.event(event, step=step, **values)

    def step(self, step: Step, *, epoch: float, images_per_s: float) -> None:
        """One optimizer step, `epoch` epochs into training."""
        if self._system:
            self._journal.system(step.step, **self._system.read())
        self._journal.step(
            step.step,
            epoch=round(epoch, 4),
            lr=step.lr,
            loss=step.loss,
            **step.losses,
            grad_norm=step.grad_norm,
            **{f"lr_factor_{module}": factor for module, factor in step.lr_factors.items()},
            images_per_s=round(images_per_s, 3),
        )

    def epoch(
        self,
        epoch: int,
        training: TrainingState,
        *,
        metrics: Mapping[str, float | None],
        lr: float,
        images_per_s: float,
        peak_memory_gb: float,
        bad_images: Mapping[str, str],
    ) -> None:
        """`epoch` epochs are trained and evaluated; `training.totals` are those of the last one.

        `lr` is its last learning rate, `metrics` are the COCO numbers in percent, `bad_images` the
        unreadable files so far, of all ranks and attempts, with the reasons.
        """
        for file in sorted(bad_images.keys() - self._bad_images):
            self._journal.event(BAD_IMAGE, step=training.step, file=file, reason=bad_images[file])
        self._bad_images |= bad_images.keys()
        totals = training.totals
        self._journal.epoch(
            epoch,
            step=training.step,
            train_s=round(training.train_s, 3),
            eval_s=round(training.eval_s, 3),
            lr=lr,
            **totals.means(),
            images_per_s=round(images_per_s, 3),
            peak_memory_gb=round(peak_memory_gb, 3),
            **totals.counts,
            **ratios_percent(totals.counts),
            **columns(totals.noise),
            bad_images=len(bad_images),
            **metrics,
        )
        self._move_to(Status.RUNNING, training)

    def about_to_save(self) -> None:
        """A checkpoint is about to be written: what came before it must not be lost, for it is not done again."""
        self._journal.sync()

    def saved(self, training: TrainingState) -> None:
        """A checkpoint is written: from now on the run is known to have made these steps."""
        self._move_to(Status.RUNNING, training)

    def ended(self, status: Status, training: TrainingState, *, reason: str | None = None) -> None:
        """The attempt is over; waits a while for MLflow to take the rest."""
        self.folder.release_room()
        self._journal.event(status, step=training.step, **({"reason": reason} if reason else {}))
        self._move_to(status, training, reason=reason, ended=now(), journal_bytes=self._journal.sync())
        self._journal.close()
        log.info("%s %s%s", self.name, status, f": {reason}" if reason else "")
        if self._mirror:
            self._mirror.close()

    def _move_to(
        self,
        status: Status,
        training: TrainingState,
        *,
        reason: str | None = None,
        ended: str | None = None,
        journal_bytes: int | None = None,
    ) -> None:
        self._state = RunState(
            status,
            attempts=self._state.attempts,
            started=self._state.started,
            ended=ended,
            train_s=round(training.train_s, 3),
            eval_s=round(training.eval_s, 3),
            shared_s=round(training.shared_s, 3),
            gpu_s=round(training.gpu_s, 3) if training.gpus else None,
            step=training.step,
            reason=reason,
            journal_bytes=journal_bytes,
        )
        self.folder.write_state(self._state)
        if self._mirror:
            self._mirror.push()


def ratios_percent(counts: Mapping[str, float]) -> dict[str, float | None]:
    """`X_ratio_percent` for each pair `X_positive`, `X_negative`: positives per 100 negatives (Table 1).

    None where there were no negatives.
    """
    ratios: dict[str, float | None] = {}
    for name, positive in counts.items():
        part = name.removesuffix("_positive")
        negative = counts.get(f"{part}_negative")
        if part != name and negative is not None:
            ratios[f"{part}_ratio_percent"] = 100 * positive / negative if negative else None
    return ratios
