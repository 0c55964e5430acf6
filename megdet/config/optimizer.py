"""The settings of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megdet.errors import UserError
from megdet.settings.own_part import OwnPart, check_own_name
from megdet.settings.rules import Name, Number, Settings, setting

OPTIMIZERS = ("sgd",)


@dataclass
class OptimizerSettings(Settings):
    """SGD, as in the paper (section 4)."""

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
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.training.optimizer.OptimizerFactory` says."""

    def check_together(self, prefix: str) -> None:
        check_own_name(prefix, self.name, self.custom, OPTIMIZERS)
        if self.custom is None:
            return
        for name in ("momentum", "weight_decay", "norm_weight_decay", "bias_weight_decay"):
            value, usual = getattr(self, name), getattr(OptimizerSettings, name)
            if value != usual:
                raise UserError(
                    f"{prefix}{name}={value:g} is for SGD, and {prefix}custom is an optimizer of your own; "
                    f"say it there, and leave {prefix}{name} at {'null' if usual is None else f'{usual:g}'}"
                )
