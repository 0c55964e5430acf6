"""The optimizer: the paper's SGD, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import Parameter

from megdet.config.optimizer import OptimizerSettings
from megdet.settings.own_part import make, misfit


class OptimizerFactory(Protocol):
    """What makes an optimizer of one's own: `_target_` is called so, with the user's arguments besides.

    torch's optimizers fit: {_target_: torch.optim.AdamW, weight_decay: 0.05}. The loop sets "lr" of every parameter
    group before each step; the state dict goes into checkpoints.
    """

    def __call__(self, parameters: Sequence[Parameter], *, lr: float) -> torch.optim.Optimizer: ...


def build_optimizer(
    settings: OptimizerSettings, parameters: Sequence[Parameter], *, lr: float
) -> torch.optim.Optimizer:
    """SGD as in section 4 of the paper, weight decay on every parameter; or the user's own.

    Raises UserError for an own one that is no torch optimizer of all `parameters`.
    """
    if settings.custom is None:
        return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    key = "optimizer.custom"
    optimizer = make(key, settings.custom, parameters, lr=lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise misfit(key, settings.custom, f"it makes {type(optimizer).__name__}, and not a torch.optim.Optimizer")
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if moved != {id(parameter) for parameter in parameters}:
        raise misfit(key, settings.custom, "its parameter groups are not all that it was given to train")
    return optimizer
