"""The learning rate of every optimizer step, from epochs and the linear scaling rule (paper section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from megdet.config.schedule import LearningRateSettings, ScheduleSettings
from megdet.errors import UserError
from megdet.settings.rules import LARGEST, shown

LEAST_LR = 1e-30
"""Smaller ones would be 0 in float32 before long, and nothing would be learned."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate by optimizer step; steps are counted from 0, milestones in steps done."""

    lr: float
    """After the warm-up and before the first milestone."""
    warmup_lr: float
    """Of the very first step, where there is a warm-up."""
    warmup_steps: int
    milestones: tuple[tuple[int, float], ...]
    """(steps done, factor) pairs, in order."""
    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def lr_at(self, step: int) -> float:
        """Learning rate of the step that follows `step` finished ones.

        The warm-up starts at `warmup_lr` and adds the same amount after every step, so that step
        `warmup_steps` is the first at the full rate (paper: "constant increment after each iteration").
        """
        if step < self.warmup_steps:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / self.warmup_steps
        lr = self.lr
        for milestone, factor in self.milestones:
            if step >= milestone:
                lr *= factor
        return lr


def make_schedule(schedule: ScheduleSettings, *, lr: LearningRateSettings, batch: int, train_images: int) -> Schedule:
    """The schedule of an experiment: a function of what is asked alone, never of GPUs.

    An epoch has train_images // batch steps; the images left over are dropped. Raises UserError where
    that is none, or where the warm-up ends too late.
    """
    steps_per_epoch = train_images // batch
    if steps_per_epoch == 0:
        raise UserError(
            f"batch={batch} is larger than data.train_images={train_images}: an epoch would have no step; "
            f"use batch={train_images} or less"
        )
    full = lr.base * batch / lr.base_batch * lr.scale
    start = lr.base if lr.warmup_start is None else lr.warmup_start
    warmup_steps = _warmup_steps(schedule, batch, steps_per_epoch) if full > start else 0
    milestones = tuple(
        (epoch * steps_per_epoch, factor) for epoch, factor in zip(schedule.milestones, schedule.factors, strict=True)
    )
    first_drop = milestones[0][0] if milestones else schedule.epochs * steps_per_epoch
    if warmup_steps > first_drop:
        raise UserError(
            f"the warm-up of {warmup_steps} steps would end after step {first_drop}, where the learning rate "
            "is to drop or training ends; shorten schedule.warmup_epochs (or warmup_images)"
        )
    factor = 1.0
    for epoch, (_, own) in zip(schedule.milestones, milestones, strict=True):
        factor *= own
        if not LEAST_LR <= full * factor <= LARGEST:
            raise UserError(
                f"schedule.factors={shown(schedule.factors)}: from epoch {epoch} on the learning rate would be "
                f"{full * factor:g}; use factors that leave it between {LEAST_LR:g} and {LARGEST:g}"
            )
    return Schedule(
        lr=full,
        warmup_lr=start if warmup_steps else full,
        warmup_steps=warmup_steps,
        milestones=milestones,
        steps_per_epoch=steps_per_epoch,
        epochs=schedule.epochs,
    )


def _warmup_steps(schedule: ScheduleSettings, batch: int, steps_per_epoch: int) -> int:
    if schedule.warmup_images is not None:
        return math.ceil(schedule.warmup_images / batch)
    return round((schedule.warmup_epochs or 0) * steps_per_epoch)
