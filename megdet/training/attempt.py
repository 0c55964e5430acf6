"""One attempt at a run, on one rank: set up, then for each epoch train, evaluate and record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from megdet.data.bad_images import check_bad_images
from megdet.data.batch import TrainingStep
from megdet.data.data_set import read_data
from megdet.errors import ExitCode
from megdet.planning.plan import Plan
from megdet.runs.classes import Classes
from megdet.runs.folder import RunFolder
from megdet.runs.job_environment import JobEnvironment, NoJob
from megdet.runs.provenance import check_same_data
from megdet.runs.status import Status
from megdet.training.assemble import (
    average_of,
    detector_of,
    learning_rate_of,
    loaders_of,
    noise_meter_of,
    optimizer_of,
    recorder_of,
)
from megdet.training.average import evaluated_weights
from megdet.training.checkpoint import Checkpoint
from megdet.training.device import device_of_all_ranks
from megdet.training.distributed import Ranks, any_over_ranks, union_over_ranks
from megdet.training.divergence import Diverged
from megdet.training.evaluate import Found, detect, gather_found
from megdet.training.fork import take_over
from megdet.training.loop import Interrupted, data_parallel, train_epoch
from megdet.training.memory import peak_memory_gb
from megdet.training.metrics import coco_metrics
from megdet.training.pictures import LastPass, draw_detections_of, draw_proposals_of
from megdet.training.precision import use_precision
from megdet.training.progress import RunProgress
from megdet.training.provenance import made_from
from megdet.training.recorder import Recorder
from megdet.training.resume import going_on, put_unused_aside
from megdet.training.starting_point import start_from_run
from megdet.training.state import TrainingState
from megdet.training.stop_signals import StopSignals
from megdet.training.totals import EpochTotals, Step
from megdet.training.watchdog import Watchdog

EVALUATING = "evaluating"
REQUEUE_WAIT_S = 120.0
"""For rank 0 to finish its records and to requeue the job; a rank that waits this long is on its own."""


class TimeIsUp(Exception):
    """Raised when a cluster wants its nodes back in the middle of an evaluation."""


class Attempt:
    """One attempt at a run, on one rank; goes on from the last attempt's checkpoint.

    `state` is how far the run has come. Rank 0 alone has a `recorder`, and writes checkpoints.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        ranks: Ranks,
        stop: StopSignals,
        job: JobEnvironment | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Set up. `job`: what this rank is part of; none where it was started by hand. `watchdog`: who is told what is
        being done; nobody.

        Raises:
            UserError: where the data is not what the plan counts on, or not what the run began with, or there is no
                checkpoint of the run that it can go on from.
        """
        self.plan, self.folder, self.ranks, self.stop = plan, folder, ranks, stop
        self.job = job or NoJob()
        self.watchdog = watchdog or Watchdog(folder, ranks.rank, timeout_s=ranks.timeout.total_seconds())
        # A large file is parsed by one rank of a node; the others then find what is kept of it.
        if ranks.local_rank:
            dist.barrier()
        self.data = read_data(plan.config.data, masks=plan.config.model.reads_masks)
        if not ranks.local_rank:
            dist.barrier()
        check_same_data(folder, self.data.facts.fingerprint)
        self.train_loader, self.eval_loader = loaders_of(plan, ranks, self.data)
        self.not_forked = ""
        """Why the run trains epochs that another one has trained."""
        if ranks.rank == 0:
            self.not_forked = take_over(plan, folder, data_sha256=self.data.facts.fingerprint)
        self.going_on = going_on(
            folder, plan.run_id, steps_per_epoch=plan.schedule.steps_per_epoch, device=ranks.device
        )
        checkpoint = self.going_on.checkpoint
        self.pretrained = checkpoint is None
        split = self.eval_loader.split
        self.classes = Classes.of(split.category_ids, split.category_names)
        self.detector = detector_of(plan, ranks, pretrained=self.pretrained)
        self.anew: list[str] = []
        """Heads that the run of `model.init_from` has no weights for."""
        if self.pretrained and plan.config.model.init_from is not None:
            self.anew = start_from_run(self.detector, plan.config.model, self.classes)
        self.last_pass = LastPass(self.detector)
        self.model = data_parallel(self.detector)
        self.optimizer = optimizer_of(plan, self.detector)
        self.average = average_of(plan, self.detector)
        self.learning_rate = learning_rate_of(plan)
        self.noise = noise_meter_of(plan, ranks, self.detector)
        self.state = TrainingState()
        if checkpoint:
            self.state = checkpoint.restore(self.detector, self.optimizer, self.average)
        self.bf16 = use_precision(plan.config.precision)
        self.device_name = device_of_all_ranks(ranks.device)
        recorded = self.going_on.epochs
        self.epochs_done = len(recorded)
        if recorded and recorded[-1]["step"] == self.state.step:
            # The checkpoint was made before the evaluation that is on record.
            self.state.totals = EpochTotals()
            self.state.past_train_s, self.state.eval_s = recorded[-1]["train_s"], recorded[-1]["eval_s"]
        self.state.go_on_with(plan.layout.gpus)
        self._saved_at = time.monotonic()
        # Every rank reads journal and checkpoint before rank 0 begins to write.
        dist.barrier()
        if ranks.rank == 0:
            put_unused_aside(folder, self.going_on)
        self.recorder = recorder_of(plan, folder, step=self.state.step) if ranks.rank == 0 else None
        self.progress = RunProgress(
            plan.name, steps=plan.schedule.steps, log_every=plan.config.log_every, enabled=ranks.rank == 0
        )

    def go(self) -> ExitCode:
        """Train and evaluate the rest of the run; returns the exit code."""
        if self.recorder:
            self._record_beginning(self.recorder)
        try:
            with self.progress:
                for epoch in range(self.epochs_done, self.plan.schedule.epochs):
                    self._train(epoch)
                    found = self._evaluate()
                    self._record(epoch, found)
                    self.state.end_epoch()
        except Diverged as diverged:
            return self._end(Status.DIVERGED, ExitCode.OK, reason=str(diverged))
        except Interrupted:
            self._save()
            return self._make_room(requeue=any_over_ranks(self.stop.requeue_wanted(), self.ranks.device))
        except TimeIsUp:
            return self._make_room(requeue=True)
        if self.recorder:
            self.folder.forget_previous_checkpoint()
        return self._end(Status.FINISHED, ExitCode.OK)

    def _record_beginning(self, recorder: Recorder) -> None:
        facts = self.data.facts
        made = made_from(self.plan, data_sha256=facts.fingerprint, device=self.device_name, pretrained=self.pretrained)
        self.folder.write_classes(self.classes)
        recorder.started(self.state, made_from=made)
        if self.not_forked:
            recorder.note("not_forked", step=self.state.step, what=self.not_forked)
        for what in self.going_on.found:
            recorder.note("not_as_it_was_left", step=self.state.step, what=what)
        if self.anew:
            what = f"{', '.join(self.anew)}: they do not fit those of {self.plan.config.model.init_from}"
            recorder.note("heads_start_anew", step=self.state.step, what=what)
        for what in facts.repairs:
            recorder.note("data_repaired", step=self.state.step, what=what)
        for what in self.job.edits_since_submission():
            recorder.note("edited_while_queued", step=self.state.step, what=what)

    def _take_steps(self, steps: Iterable[TrainingStep]) -> None:
        train_epoch(
            self.model,
            steps,
            optimizer=self.optimizer,
            lr_at=self.learning_rate.lr_at,
            first_step=self.state.step,
            batch=self.plan.config.batch,
            device=self.ranks.device,
            bf16=self.bf16,
            clip_grad_norm=self.plan.config.optimizer.clip_grad_norm,
            watch=self.state.watch,
            totals=self.state.totals,
            stop_requested=self.stop.requested,
            on_step=self._after_step,
            noise=self.noise,
            average=self.average,
        )

    def _train(self, epoch: int) -> None:
        """Train the rest of epoch `epoch` (from 0) and write a checkpoint."""
        first = self.state.step - epoch * self.plan.schedule.steps_per_epoch
        self._take_steps(self.watchdog.reading(self.train_loader.epoch(epoch, first_step=first)))
        # Before the evaluation, so that an attempt that ends there has lost no training.
        self._save()
        if self.recorder and epoch + 1 in self.plan.keep_epochs:
            self.folder.keep_checkpoint_of(epoch + 1)

    @property
    def _drawn_epochs(self) -> tuple[int, ...]:
        """The first, middle and last epoch, at whose ends proposals are drawn."""
        epochs = self.plan.schedule.epochs
        return (1, (epochs + 1) // 2, epochs)

    def _after_step(self, step: Step, seconds: float) -> None:
        self.state.step = step.step
        self.watchdog.stepped(step.step, seconds)
        epoch = step.step / self.plan.schedule.steps_per_epoch
        images_per_s = self.plan.config.batch / seconds
        self.progress.stepped(step.step, epoch=epoch, loss=step.loss, lr=step.lr, images_per_s=images_per_s)
        if step.step % self.plan.config.log_every == 0:
            self.state.steps_recorded += 1
            if self.recorder:
                self.recorder.step(step, epoch=epoch, images_per_s=images_per_s)
        # Before any checkpoint: an attempt that goes on from there has no pass to draw.
        if self.recorder and epoch in self._drawn_epochs:
            self.folder.check_owner()
            draw_proposals_of(self.last_pass, self.folder, epoch=int(epoch))
        if time.monotonic() - self._saved_at > 60 * self.plan.config.checkpoint_every_min:
            self._save()

    def _evaluate(self) -> Found:
        """The detections of all validation images, on every rank."""
        began = time.perf_counter()
        self.watchdog.doing(EVALUATING)
        self.progress.evaluating(len(self.eval_loader))
        with evaluated_weights(self.average):
            found = detect(
                self.detector,
                self.eval_loader,
                category_ids=self.eval_loader.split.category_ids,
                device=self.ranks.device,
                bf16=self.bf16,
                on_batch=self._after_evaluation_batch,
            )
        found = gather_found(found, self.ranks.device)
        self.state.eval_s += time.perf_counter() - began
        return found

    def _after_evaluation_batch(self) -> None:
        self.progress.evaluated()
        self.watchdog.doing(EVALUATING)
        if self.recorder and self.stop.requeue_wanted() and self.job.can_requeue:
            # The last checkpoint holds all that was trained; the other ranks end with this one.
            raise TimeIsUp

    def _record(self, epoch: int, found: Found) -> None:
        """Gather an epoch's results from all ranks, score and record them."""
        self.watchdog.doing("scoring")
        data = self.plan.config.data
        here = {
            os.path.relpath(loader.split.folder / name, data.root): reason
            for loader in (self.train_loader, self.eval_loader)
            for name, reason in loader.bad_images.items()
        }
        bad_images = {**self.going_on.bad_images, **union_over_ranks(here)}
        # Each loader minds its own rank's; together they must not be more either.
        check_bad_images(bad_images, most=data.max_bad_images, folder=Path(data.root))
        memory_gb = peak_memory_gb(self.ranks.device)
        if not self.recorder:
            return
        totals = self.state.totals
        metrics = coco_metrics(self.eval_loader.split.annotations, found.rows, found.masks)
        # Before the epoch is on record: nobody evaluates it again.
        if epoch + 1 == self.plan.schedule.epochs:
            self.folder.check_owner()
            draw_detections_of(found, self.folder, self.eval_loader.split)
        self.recorder.epoch(
            epoch + 1,
            self.state,
            metrics=metrics,
            lr=self.learning_rate.lr_at(self.state.step - 1),
            images_per_s=totals.steps * self.plan.config.batch / totals.train_s,
            peak_memory_gb=memory_gb,
            bad_images=bad_images,
        )
        self.progress.epoch_done(epoch + 1, loss=totals.means()["loss"], metrics=metrics)

    def _make_room(self, *, requeue: bool) -> ExitCode:
        """The checkpoint is written; rank 0 sees to it that the run goes on later, if that is wanted."""
        if requeue and self.recorder and self.job.requeue():
            self.recorder.note("requeued", step=self.state.step)
        reason = "asked to make room" if requeue else "asked to stop"
        code = self._end(Status.INTERRUPTED, ExitCode.INTERRUPTED, reason=reason)
        if requeue and not self.recorder and self.job.can_requeue:
            # A rank that ended now would take rank 0 with it; Slurm ends this one once the job is requeued.
            self.stop.ignore_no_more()
            time.sleep(REQUEUE_WAIT_S)
        return code

    def _end(self, status: Status, code: ExitCode, *, reason: str | None = None) -> ExitCode:
        self.watchdog.doing("ending")
        if self.recorder:
            self.recorder.ended(status, self.state, reason=reason)
        return code

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.recorder:
            self.watchdog.doing("saving a checkpoint")
            self.folder.check_owner()
            self.recorder.about_to_save()
            checkpoint = Checkpoint.of(self.plan.run_id, self.detector, self.optimizer, self.state, self.average)
            checkpoint.write(self.folder.checkpoint, before=self.folder.keep_checkpoint)
            self.recorder.saved(self.state)
