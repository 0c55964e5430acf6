"""One attempt at a run, on one rank: where plan, data, detector, loop, evaluation and records meet."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from megdet.data.loader import check_bad_images
from megdet.errors import ExitCode
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment, NoJob
from megdet.runs.status import Status
from megdet.training.assemble import detector_of, loaders_of, optimizer_of
from megdet.training.checkpoint import load_checkpoint, save_checkpoint
from megdet.training.distributed import Ranks, sum_over_ranks
from megdet.training.divergence import Diverged, LossWatch
from megdet.training.evaluate import detect, gather_rows
from megdet.training.loop import EpochTotals, Interrupted, Step, data_parallel, peak_memory_gb, train_epoch
from megdet.training.metrics import coco_metrics
from megdet.training.pictures import LastPass, draw_detections_of, draw_proposals_of
from megdet.training.precision import use_precision
from megdet.training.progress import RunProgress
from megdet.training.recorder import Recorder, epochs_recorded
from megdet.training.stop_signals import StopSignals

REQUEUE_WAIT_S = 120.0
"""For rank 0 to finish its records and to requeue the job; a rank that waits this long is on its own."""


class TimeIsUp(Exception):
    """A cluster wants its nodes back in the middle of an evaluation."""


class Attempt:
    """One attempt at a run, on one rank; goes on from the last attempt's checkpoint."""

    def __init__(
        self, plan: Plan, folder: RunFolder, ranks: Ranks, stop: StopSignals, job: JobEnvironment | None = None
    ) -> None:
        """`job`: what this rank is part of; none where it was started by hand."""
        self.job = job or NoJob()
        self.plan, self.folder, self.ranks, self.stop = plan, folder, ranks, stop
        self.train_loader, self.eval_loader = loaders_of(plan, ranks)
        self.pretrained = not folder.checkpoint.exists()
        self.detector = detector_of(plan, ranks, pretrained=self.pretrained)
        self.last_pass = LastPass(self.detector)
        self.model = data_parallel(self.detector)
        self.optimizer = optimizer_of(plan, self.detector)
        self.bf16 = use_precision(plan.config.precision)
        self.watch = LossWatch()
        self.totals = EpochTotals()
        self.step = 0
        self.past_train_s = 0.0
        """Training seconds of the epochs before the current one, over all attempts."""
        self.eval_s = 0.0
        self._saved_at = time.monotonic()
        self._load()
        recorded = epochs_recorded(folder, step=self.step)
        self.epochs_done = len(recorded)
        if recorded and recorded[-1]["step"] == self.step:
            # The checkpoint was made before the evaluation that is on record.
            self.totals = EpochTotals()
            self.past_train_s, self.eval_s = recorded[-1]["train_s"], recorded[-1]["eval_s"]
        # Every rank reads the journal before rank 0 begins to write.
        dist.barrier()
        self.recorder = Recorder(plan, folder, step=self.step) if ranks.rank == 0 else None
        self.progress = RunProgress(
            plan.name, steps=plan.schedule.steps, log_every=plan.config.log_every, enabled=ranks.rank == 0
        )

    def go(self) -> ExitCode:
        """Train and evaluate what is left of the run; its exit code."""
        if self.recorder:
            self.recorder.started(pretrained=self.pretrained, **self._seconds())
            for what in self.job.edits_since_submission():
                self.recorder.note("edited_while_queued", step=self.step, what=what)
        epochs = self.plan.schedule.epochs
        try:
            with self.progress:
                for epoch in range(self.epochs_done, epochs):
                    self._train(epoch)
                    if self.recorder and epoch + 1 in (1, (epochs + 1) // 2, epochs):
                        draw_proposals_of(self.last_pass, self.folder, epoch=epoch + 1)
                    self._evaluate(epoch, last=epoch + 1 == epochs)
        except Diverged as diverged:
            return self._ended(Status.DIVERGED, str(diverged), code=ExitCode.OK)
        except Interrupted:
            self._save()
            return self._interrupted(requeue=_any_over_ranks(self.stop.requeue_wanted(), self.ranks.device))
        except TimeIsUp:
            return self._interrupted(requeue=True)
        return self._ended(Status.FINISHED, None, code=ExitCode.OK)

    def _interrupted(self, *, requeue: bool) -> ExitCode:
        """The checkpoint is written; rank 0 sees to it that the run goes on later, if that is wanted."""
        if requeue and self.recorder and self.job.requeue():
            self.recorder.note("requeued", step=self.step)
        code = self._ended(
            Status.INTERRUPTED, "asked to make room" if requeue else "asked to stop", code=ExitCode.INTERRUPTED
        )
        if requeue and not self.recorder and self.job.can_requeue:
            # A rank that ended now would take rank 0 with it; the queue ends this one with its job.
            self.stop.ignore_no_more()
            time.sleep(REQUEUE_WAIT_S)
        return code

    def _ended(self, status: Status, reason: str | None, *, code: ExitCode) -> ExitCode:
        if self.recorder:
            self.recorder.ended(status, step=self.step, reason=reason, **self._seconds())
        return code

    def _train(self, epoch: int) -> None:
        steps_per_epoch = self.plan.schedule.steps_per_epoch
        train_epoch(
            self.model,
            self.train_loader.epoch(epoch, first_step=self.step - epoch * steps_per_epoch),
            optimizer=self.optimizer,
            lr_at=self.plan.schedule.lr_at,
            first_step=self.step,
            batch=self.plan.config.batch,
            device=self.ranks.device,
            bf16=self.bf16,
            clip_grad_norm=self.plan.config.optimizer.clip_grad_norm,
            watch=self.watch,
            totals=self.totals,
            stop_requested=self.stop.requested,
            on_step=self._stepped,
        )
        # Before the evaluation, so that an attempt that ends there has lost no training.
        self._save()

    def _stepped(self, step: Step, seconds: float) -> None:
        self.step = step.step
        epoch = step.step / self.plan.schedule.steps_per_epoch
        images_per_s = self.plan.config.batch / seconds
        self.progress.stepped(step.step, epoch=epoch, loss=step.loss, lr=step.lr, images_per_s=images_per_s)
        if self.recorder and step.step % self.plan.config.log_every == 0:
            self.recorder.step(step, epoch=epoch, images_per_s=images_per_s)
        if time.monotonic() - self._saved_at > 60 * self.plan.config.checkpoint_every_min:
            self._save()

    def _evaluate(self, epoch: int, *, last: bool) -> None:
        began = time.perf_counter()
        self.progress.evaluating(len(self.eval_loader))
        rows = detect(
            self.detector,
            self.eval_loader,
            category_ids=self.eval_loader.split.category_ids,
            device=self.ranks.device,
            bf16=self.bf16,
            on_batch=self._evaluated,
        )
        rows = gather_rows(rows, self.ranks.device)
        bad_images = _union_over_ranks({**self.train_loader.bad_images, **self.eval_loader.bad_images})
        # Each loader minds its own rank's; together they must not be more either.
        data = self.plan.config.data
        check_bad_images(bad_images, most=data.max_bad_images, folder=Path(data.root))
        memory_gb = peak_memory_gb(self.ranks.device)
        self.eval_s += time.perf_counter() - began
        if self.recorder:
            metrics = coco_metrics(self.eval_loader.split.annotations, rows)
            self.recorder.epoch(
                epoch + 1,
                step=self.step,
                totals=self.totals,
                metrics=metrics,
                lr=self.plan.schedule.lr_at(self.step - 1),
                peak_memory_gb=memory_gb,
                bad_images=bad_images,
                **self._seconds(),
            )
            self.progress.epoch_done(epoch + 1, loss=self.totals.loss / self.totals.steps, metrics=metrics)
            if last:
                draw_detections_of(rows, self.folder, self.eval_loader.split)
        self.past_train_s += self.totals.train_s
        self.totals = EpochTotals()

    def _evaluated(self) -> None:
        self.progress.evaluated()
        if self.recorder and self.stop.requeue_wanted() and self.job.can_requeue:
            # The last checkpoint holds all that was trained; the other ranks end with this one.
            raise TimeIsUp

    def _seconds(self) -> dict[str, float]:
        return {"train_s": self.past_train_s + self.totals.train_s, "eval_s": self.eval_s}

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.ranks.rank != 0:
            return
        save_checkpoint(
            self.folder.checkpoint,
            {
                "run_id": self.plan.run_id,
                "model": self.detector.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "totals": asdict(self.totals),
                "watch": asdict(self.watch),
                "past_train_s": self.past_train_s,
                "eval_s": self.eval_s,
            },
        )

    def _load(self) -> None:
        saved = load_checkpoint(self.folder.checkpoint, self.ranks.device)
        if saved is None:
            return
        self.detector.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        self.totals = EpochTotals(**saved["totals"])
        self.watch = LossWatch(**saved["watch"])
        self.past_train_s = saved["past_train_s"]
        self.eval_s = saved["eval_s"]


def _any_over_ranks(own: bool, device: torch.device) -> bool:
    return bool(sum_over_ranks(torch.tensor(float(own), device=device)).item())


def _union_over_ranks(own: dict[str, str]) -> dict[str, str]:
    parts: list[dict[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return {name: reason for part in parts if part for name, reason in part.items()}
