"""What a user can ask for, in the paper's words: the schema behind `conf/`.

Plain data with the paper's experiment as its defaults (ResNet-50 FPN, COCO 2017, batch 16, normal schedule).
Every component declares and checks its own settings; this module only puts them together.
Nothing here is derived, and nothing that `megdet.planning` derives can be set. Hydra fills it in and rejects keys and
types it does not know; whether a layout gives what the numbers ask for is checked by `megdet.planning.plan.make_plan`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar, get_type_hints

from megdet.config.cluster import ClusterSettings
from megdet.config.optimizer import OptimizerSettings
from megdet.config.schedule import LearningRateSettings, ScheduleSettings
from megdet.config.sweep import SweepSettings
from megdet.config.tracking import TrackingSettings
from megdet.data.settings import DataSettings
from megdet.errors import UserError
from megdet.model.settings import OFFLOAD, EvaluationSettings, ModelSettings
from megdet.settings.paths import PathText
from megdet.settings.rules import Number, OneOf, Settings, Whole, setting, shown

MOST_IMAGES = 100_000
"""Of one optimizer step."""


@dataclass
class Config(Settings):
    """One experiment as asked."""

    batch: int = setting(16, Whole(least=1, most=MOST_IMAGES))
    """Images per optimizer step, over all GPUs."""
    bn_size: int = setting(16, Whole(most=MOST_IMAGES))
    """Images behind one BN statistic; 0: BN is frozen, the paper's baseline."""
    gpus: int | str = setting("auto", Whole(least=1, most=MOST_IMAGES, or_auto=True))
    """Processes that train; auto: the paper's layout, or the most GPUs that fit."""
    images_per_gpu: int | str = setting("auto", Whole(least=1, most=MOST_IMAGES, or_auto=True))
    """Images in one forward pass on one GPU."""
    sublinear: bool | str = setting("auto", OneOf(("auto", True, False, OFFLOAD)))
    """Activation checkpointing; auto: from bn_size 32, as in the paper; offload: with what is kept in main memory."""
    precision: str = setting("fp32", OneOf(("fp32", "tf32", "bf16")))
    """fp32, tf32 (of GPUs alone) or bf16 (autocast)."""
    seed: int = setting(0, Whole())
    runs_dir: str = setting("runs", PathText())
    log_every: int = setting(20, Whole(least=1))
    """Optimizer steps between two lines of the journal."""
    noise_scale_every: int = setting(0, Whole(most=1_000_000))
    """Optimizer steps from one measurement of the gradient noise scale to the next; 0: it is not measured."""
    checkpoint_every_min: float = setting(10.0, Number())
    """Minutes between two checkpoints inside an epoch; each epoch ends with one."""
    lr: LearningRateSettings = field(default_factory=LearningRateSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    eval: EvaluationSettings = field(default_factory=EvaluationSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def check_together(self, prefix: str) -> None:
        if self.bn_size and not self.model.bn_in:
            raise UserError(
                f"model.bn_in=[] leaves bn_size={self.bn_size} no layer; use bn_size=0, or model.bn_in=[backbone,fpn]"
            )
        if not self.bn_size and self.model.norm.custom is not None:
            raise UserError(
                "bn_size=0 freezes BN, so that model.norm.custom would change nothing; use model/norm=cgbn, or a "
                "bn_size above 0"
            )
        if self.optimizer.agvm.interval is not None:
            self._check_agvm(self.optimizer.agvm.interval)

    def _check_agvm(self, interval: int) -> None:
        whole = 2 * max(1, self.bn_size)
        if self.batch % whole:
            raise UserError(
                f"optimizer=agvm compares the gradients of two halves of a batch, and batch={self.batch} has no halves "
                f"of whole BN batches (bn_size={self.bn_size}); use batch={-(-self.batch // whole) * whole}, or a "
                "smaller bn_size"
            )
        # AGVM takes the first of every `interval` steps, the noise scale the last of its own.
        if self.noise_scale_every and math.gcd(interval, self.noise_scale_every) == 1:
            raise UserError(
                f"noise_scale_every={self.noise_scale_every}: optimizer=agvm compares in every step that is a multiple "
                f"of optimizer.agvm.interval={interval}, and such steps cannot be measured; use two numbers with a "
                "common divisor, such as an interval of 10 and every 20th step, or noise_scale_every=0"
            )


S = TypeVar("S", bound=Settings)


def settings_from(cls: type[S], values: object, name: str = "the plan's config") -> S:
    """The settings that `dataclasses.asdict` turned into `values`; what is missing has its default.

    Raises UserError for keys that `cls` does not have: the file was written by another version.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{name} is {shown(values)}, not settings by name: the plan is damaged")
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise UserError(
            f"{name} has {', '.join(map(shown, unknown[:5]))}, which this megdet does not know: another version wrote "
            "the plan; check out the commit it names, or launch the experiment again"
        )
    made = {
        key: settings_from(hints[key], value, key) if _is_settings(hints[key]) else value
        for key, value in values.items()
    }
    return cls(**made)


def _is_settings(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)
