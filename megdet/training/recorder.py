"""What rank 0 writes of a run: journal, state, and the MLflow mirror of them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from megdet.data.files import coco_files
from megdet.model.weights import path_of
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.journal import Journal, read_journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.runs.times import now
from megdet.tracking.mirror import Mirror
from megdet.tracking.uri import default_uri
from megdet.training.loop import EpochTotals, Step

log = logging.getLogger("megdet")

CLOSE_MIRROR_S = 60.0


class Recorder:
    """The records of one attempt; used by rank 0 alone."""

    def __init__(self, plan: Plan, folder: RunFolder, *, step: int) -> None:
        """`step` is where the attempt's checkpoint stands; the journal's lines beyond it will be written again."""
        self.plan, self.folder = plan, folder
        folder.forget_failure()
        before = folder.state()
        self._journal = Journal(folder)
        self._journal.drop_after(step)
        self._state = RunState(
            Status.RUNNING,
            attempts=before.attempts + 1 if before else 1,
            started=before.started if before else now(),
            step=step,
        )
        self._bad_images: set[str] = set()
        self._mirror: Mirror | None = None
        tracking = plan.config.tracking
        if tracking.enabled:
            self._mirror = Mirror(folder, tracking.uri or default_uri(Path.cwd()), tracking.experiment)

    def started(self, *, pretrained: bool, train_s: float, eval_s: float) -> None:
        """The first step of the attempt is about to be made: by which code, on which data, from which weights.

        `pretrained`: whether the attempt began from the file of `model.weights`, not from a checkpoint.
        """
        event = "resumed" if self._state.step else "started"
        files = coco_files(self.plan.config.data.root)
        values = {"data_sha256": _sha256_of(files.train_annotations, files.val_annotations)}
        model = self.plan.config.model
        weights = path_of(model.weights, model.backbone) if pretrained else None
        if weights:
            values["weights_sha256"] = _sha256_of(weights)
        self._journal.event(
            event,
            step=self._state.step,
            attempt=self._state.attempts,
            commit=self.plan.commit,
            dirty=self.plan.dirty,
            **values,
        )
        self._move_to(Status.RUNNING, step=self._state.step, train_s=train_s, eval_s=eval_s)

    def note(self, event: str, *, step: int, **values: str) -> None:
        """Something about the run that a reader of its journal should know."""
        log.info("%s: %s %s", self.plan.name, event.replace("_", " "), " ".join(values.values()))
        self._journal.event(event, step=step, **values)

    def step(self, step: Step, *, epoch: float, images_per_s: float) -> None:
        """One optimizer step, `epoch` epochs into training."""
        self._journal.step(
            step.step,
            epoch=round(epoch, 4),
            lr=step.lr,
            loss=step.loss,
            **step.losses,
            grad_norm=step.grad_norm,
            images_per_s=round(images_per_s, 3),
        )

    def epoch(
        self,
        epoch: int,
        *,
        step: int,
        totals: EpochTotals,
        metrics: dict[str, float | None],
        lr: float,
        peak_memory_gb: float,
        bad_images: dict[str, str],
        train_s: float,
        eval_s: float,
    ) -> None:
        """`epoch` epochs are trained and evaluated. `bad_images`: unreadable files and why, of all ranks, so far."""
        for name in sorted(bad_images.keys() - self._bad_images):
            self._journal.event("bad_image", step=step, file=name, reason=bad_images[name])
        self._bad_images |= bad_images.keys()
        self._journal.epoch(
            epoch,
            step=step,
            train_s=round(train_s, 3),
            eval_s=round(eval_s, 3),
            lr=lr,
            loss=totals.loss / totals.steps,
            grad_norm=totals.grad_norm / totals.steps,
            images_per_s=round(totals.steps * self.plan.config.batch / totals.train_s, 3),
            peak_memory_gb=round(peak_memory_gb, 3),
            **totals.samples,
            rpn_ratio_percent=_ratio_percent(totals.samples, "rpn"),
            roi_ratio_percent=_ratio_percent(totals.samples, "roi"),
            bad_images=len(bad_images),
            **metrics,
        )
        self._move_to(Status.RUNNING, step=step, train_s=train_s, eval_s=eval_s)

    def ended(self, status: Status, *, step: int, reason: str | None, train_s: float, eval_s: float) -> None:
        """The attempt is over; waits a while for MLflow to take the rest."""
        self._journal.event(status, step=step, **({"reason": reason} if reason else {}))
        self._move_to(status, step=step, train_s=train_s, eval_s=eval_s, reason=reason, ended=now())
        self._journal.close()
        log.info("%s %s%s", self.plan.name, status, f": {reason}" if reason else "")
        if self._mirror:
            self._mirror.close(CLOSE_MIRROR_S)

    def _move_to(
        self,
        status: Status,
        *,
        step: int,
        train_s: float,
        eval_s: float,
        reason: str | None = None,
        ended: str | None = None,
    ) -> None:
        self._state = RunState(
            status,
            attempts=self._state.attempts,
            started=self._state.started,
            ended=ended,
            train_s=round(train_s, 3),
            eval_s=round(eval_s, 3),
            step=step,
            reason=reason,
        )
        self.folder.write_state(self._state)
        if self._mirror:
            self._mirror.push()


def epochs_recorded(folder: RunFolder, *, step: int) -> list[dict[str, Any]]:
    """The journal's lines on the epochs that are trained, evaluated and recorded, up to optimizer step `step`."""
    return [line for line in read_journal(folder) if line["kind"] == "epoch" and line["step"] <= step]


def _sha256_of(*files: Path) -> str:
    """The first 12 hex digits of the SHA-256 of the files' content, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:12]


def _ratio_percent(samples: dict[str, float], part: str) -> float | None:
    """Positive samples per 100 negative ones (Table 1), over all ranks and steps of the epoch."""
    negative = samples[f"{part}_negative"]
    return 100 * samples[f"{part}_positive"] / negative if negative else None
