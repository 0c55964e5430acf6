"""The settings of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from megdet.errors import UserError
from megdet.settings.own_part import OwnPart, check_own_name
from megdet.settings.rules import Name, Number, Settings, Whole, setting, shown

OPTIMIZERS = ("sgd", "agvm")


@dataclass
class AgvmSettings(Settings):
    """A learning rate for each module, by the variance of its gradient (`megdet.training.agvm`)."""

    interval: int | None = setting(None, Whole(least=1))
    """Steps between two comparisons of the halves of a batch; None: all modules have the same learning rate."""
    alpha: float = setting(0.97, Number(most=1))
    """How much of a module's factor stays at a comparison."""


@dataclass
class OptimizerSettings(Settings):
    """SGD, as in the paper (section 4); with `agvm`, its learning rate differs by module."""

    name: str = setting("sgd", Name())
    momentum: float = setting(0.9, Number(most=1))
    weight_decay: float = setting(1e-4, Number())
    norm_weight_decay: float | None = setting(None, Number())
    """Of the weights and biases of norms; None: `weight_decay`, as for everything else. detectron2 has 0 here."""
    bias_weight_decay: float | None = setting(None, Number())
    """Of the biases of all other layers; None: `weight_decay`."""
    clip_grad_norm: float | None = setting(
        None, Number(above=0), why="0 would stop all learning; null means not clipped"
    )
    """Largest norm of the whole gradient; None: not clipped, as in the paper."""
    ema_decay: float | None = setting(None, Number(above=0, most=0.99999), why="null means no average")
    """Of the running average of the weights, which are evaluated and exported instead of the last ones; 0.9998, say."""
    agvm: AgvmSettings = field(default_factory=AgvmSettings)
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.training.optimizer.OptimizerFactory` says."""

    def check_together(self, prefix: str) -> None:
        check_own_name(prefix, self.name, self.custom, OPTIMIZERS)
        if (self.name == "agvm") != (self.agvm.interval is not None):
            raise UserError(
                f"{prefix}name={self.name} and {prefix}agvm.interval={shown(self.agvm.interval)} do not go together: "
                "use optimizer=agvm, which sets both, or optimizer=sgd"
            )
        if self.custom is None:
            return
        for name in ("momentum", "weight_decay", "norm_weight_decay", "bias_weight_decay"):
            value, usual = getattr(self, name), getattr(OptimizerSettings, name)
            if value != usual:
                raise UserError(
                    f"{prefix}{name}={value:g} is for SGD, and {prefix}custom is an optimizer of your own; "
                    f"say it there, and leave {prefix}{name} at {'null' if usual is None else f'{usual:g}'}"
                )
