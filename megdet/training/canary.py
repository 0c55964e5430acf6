"""A canary on one rank: some steps, one evaluation batch and a checkpoint, all as in the run that it stands for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from megdet.data.batch import TrainingStep
from megdet.errors import ExitCode, UserError
from megdet.runs.canary import STEPS
from megdet.runs.canary_report import CanaryReport
from megdet.runs.status import Status
from megdet.training.attempt import Attempt
from megdet.training.average import evaluated_weights
from megdet.training.checkpoint import Checkpoint
from megdet.training.distributed import any_over_ranks
from megdet.training.divergence import Diverged
from megdet.training.evaluate import detect, gather_found
from megdet.training.loop import Interrupted
from megdet.training.memory import peak_memory_gb
from megdet.training.metrics import coco_metrics
from megdet.training.totals import Step


class CanaryAttempt(Attempt):
    """Leaves canary.json instead of a result. It begins at the first step each time, and keeps no checkpoint."""

    def go(self) -> ExitCode:
        """Make the steps, and record what they took; the exit code.

        Raises UserError where it was interrupted more often than runs are started again after a lost node.
        """
        self._seconds: list[float] = []
        self._waited: list[float] = []
        if self.recorder:
            self._record_beginning(self.recorder)
        try:
            with self.progress:
                self._take_steps(self._timed(self.watchdog.reading(islice(self.train_loader.epoch(0), STEPS))))
                eval_gpu_s = self._evaluate_batch()
        except Diverged as diverged:
            # That is for the runs to find out, each with its own rates; what was measured does for none of them.
            return self._end(Status.DIVERGED, ExitCode.OK, reason=str(diverged))
        except Interrupted:
            return self._interrupted()
        self._try_saving()
        peak_gb = peak_memory_gb(self.ranks.device)
        return self._report(eval_gpu_s, peak_gb)

    def _timed(self, steps: Iterable[TrainingStep]) -> Iterator[TrainingStep]:
        """The steps, with how long each was waited for."""
        iterator = iter(steps)
        while True:
            began = time.perf_counter()
            step = next(iterator, None)
            if step is None:
                return
            self._waited.append(time.perf_counter() - began)
            yield step

    def _after_step(self, step: Step, seconds: float) -> None:
        # Not into the state: without a checkpoint, no attempt may count on these steps.
        self._seconds.append(seconds)
        self.watchdog.stepped(step.step, seconds)
        epoch, images_per_s = step.step / self.plan.schedule.steps_per_epoch, self.plan.config.batch / seconds
        self.progress.stepped(step.step, epoch=epoch, loss=step.loss, lr=step.lr, images_per_s=images_per_s)

    def _evaluate_batch(self) -> float:
        """GPU-seconds of a whole evaluation, by one batch of each rank; it is scored as a whole one would be."""
        self.watchdog.doing("evaluating")
        batches = list(islice(self.eval_loader, 1))
        split = self.eval_loader.split
        for _ in range(2):  # the first time, libraries warm up
            began = time.perf_counter()
            with evaluated_weights(self.average):
                found = detect(
                    self.detector,
                    batches,
                    category_ids=split.category_ids,
                    device=self.ranks.device,
                    bf16=self.bf16,
                    on_batch=self.progress.evaluated,
                )
            seconds = time.perf_counter() - began
        found = gather_found(found, self.ranks.device)
        if self.recorder:
            self.watchdog.doing("scoring")
            coco_metrics(split.annotations, found.rows, found.masks)
        images = sum(len(batch.image_ids) for batch in batches)
        return seconds / images * len(split) if images else 0.0

    def _try_saving(self) -> None:
        """Rights, quotas and a full disk are found now, and not after an epoch."""
        if self.recorder:
            self.watchdog.doing("saving a checkpoint")
            self.folder.check_owner()
            checkpoint = Checkpoint.of(self.plan.run_id, self.detector, self.optimizer, self.state, self.average)
            checkpoint.write(self.folder.checkpoint)
            self.folder.checkpoint.unlink()

    def _report(self, eval_gpu_s: float, peak_gb: float) -> ExitCode:
        warm = len(self._seconds) // 4
        seconds = self._seconds[warm:]
        report = CanaryReport(
            steps=len(self._seconds),
            step_s=round(statistics.median(seconds), 6),
            loader_share=round(sum(self._waited[warm:]) / sum(seconds), 4),
            eval_gpu_s=round(eval_gpu_s, 6),
            peak_memory_gb=round(peak_gb, 3),
        )
        if self.recorder:
            report.write(self.folder)
        return self._end(Status.FINISHED, ExitCode.OK, reason=report.describe(self.plan))

    def _interrupted(self) -> ExitCode:
        state, most = self.folder.state(), self.plan.config.cluster.max_retries
        wanted = any_over_ranks(self.stop.requeue_wanted(), self.ranks.device)
        if wanted and state and state.attempts > most:
            raise UserError(
                f"the canary was interrupted {state.attempts} times before it had made {STEPS} steps: its jobs of "
                f"cluster.time_min={self.plan.config.cluster.time_min} minutes end too soon, or are preempted"
            )
        return self._make_room(requeue=wanted)
