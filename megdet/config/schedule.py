"""The settings of the learning rate: its size by the linear scaling rule, and when it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megdet.errors import UserError
from megdet.settings.own_part import OwnPart, refuse_name_of_built_in
from megdet.settings.rules import Each, Name, Number, Settings, Whole, setting

SCHEDULES = ("normal", "long")
"""The paper's."""
_NOTHING_LEARNED = "nothing would be learned otherwise"


@dataclass
class LearningRateSettings(Settings):
    """Linear scaling (paper section 3.2): lr = base x batch / base_batch x scale."""

    base: float = setting(0.02, Number(above=0), why=_NOTHING_LEARNED)
    base_batch: int = setting(16, Whole(least=1))
    scale: float = setting(1.0, Number(above=0), why=_NOTHING_LEARNED)
    """0.5 is the "half learning rate" of Table 2."""
    warmup_start: float | None = setting(None, Number())
    """Of the first step of the warm-up; None: `base`, as in the paper (section 3.2)."""


@dataclass
class ScheduleSettings(Settings):
    """When the learning rate changes, in epochs."""

    name: str = setting("normal", Name())
    epochs: int = setting(11, Whole(least=1, most=100_000))
    milestones: list[int] = setting([8, 10], Each(Whole(least=1)))
    """Epochs done when the learning rate is multiplied by the factor in the same place."""
    factors: list[float] = setting([0.1, 0.1], Each(Number(above=0)), why=_NOTHING_LEARNED)
    warmup_epochs: float | None = setting(1.0, Number())
    """Length of the rise from lr.warmup_start to lr; to give it in images, set this to null and the next one."""
    warmup_images: int | None = setting(None, Whole())
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.training.learning_rate.LearningRate` says."""

    def check_together(self, prefix: str) -> None:
        if len(self.milestones) != len(self.factors):
            raise UserError(
                f"{prefix}milestones={self.milestones} and {prefix}factors={self.factors} must be of equal length: "
                "each milestone has its factor"
            )
        if self.milestones != sorted(set(self.milestones)) or not all(m < self.epochs for m in self.milestones):
            raise UserError(
                f"{prefix}milestones={self.milestones} must rise and lie between 0 and {prefix}epochs={self.epochs}"
            )
        if self.warmup_epochs is not None and self.warmup_images is not None:
            raise UserError(
                f"{prefix}warmup_epochs={self.warmup_epochs:g} and {prefix}warmup_images={self.warmup_images} both "
                f"set the warm-up's length; add {prefix}warmup_epochs=null to use images"
            )
        if self.custom is not None:
            refuse_name_of_built_in(prefix, self.name, SCHEDULES)
