"""The optimizer: the paper's SGD, AGVM, or one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import Parameter

from megdet.config.optimizer import OptimizerSettings
from megdet.settings.own_part import make, misfit
from megdet.training.agvm import AGVM
from megdet.training.modules import modules_of


class OptimizerFactory(Protocol):
    """What makes an optimizer of one's own: `_target_` is called so, with the user's arguments besides.

    torch's optimizers fit: {_target_: torch.optim.AdamW, weight_decay: 0.05}. The loop sets "lr" of every parameter
    group before each step; the state dict goes into checkpoints.
    """

    def __call__(self, parameters: Sequence[Parameter], *, lr: float) -> torch.optim.Optimizer: ...


def build_optimizer(
    settings: OptimizerSettings, model: nn.Module, *, lr: float, warmup_steps: int
) -> torch.optim.Optimizer:
    """SGD as in section 4 of the paper, AGVM, or the user's own, of all parameters of `model` that are trained.

    Raises UserError for an own one that is no torch optimizer of all of them, and for AGVM without its anchor.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if settings.custom is None:
        if settings.agvm.interval is not None:
            by_module = [
                {"params": group, "weight_decay": decay, "module": module}
                for module, own in modules_of(model).items()
                for decay, group in _by_weight_decay(settings, model, own).items()
            ]
            return AGVM(by_module, lr=lr, momentum=settings.momentum, settings=settings.agvm, first_step=warmup_steps)
        groups = [
            {"params": group, "weight_decay": decay}
            for decay, group in _by_weight_decay(settings, model, parameters).items()
        ]
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    key = "optimizer.custom"
    optimizer = make(key, settings.custom, parameters, lr=lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise misfit(key, settings.custom, f"it makes {type(optimizer).__name__}, and not a torch.optim.Optimizer")
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if moved != {id(parameter) for parameter in parameters}:
        raise misfit(key, settings.custom, "its parameter groups are not all that it was given to train")
    return optimizer


def _by_weight_decay(
    settings: OptimizerSettings, model: nn.Module, parameters: Sequence[Parameter]
) -> dict[float, list[Parameter]]:
    """The parameters by their weight decay, in their order; all of them in one group where they have the same."""
    norms: set[int] = set()
    biases: set[int] = set()
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if (weight := own.get("weight")) is not None and weight.ndim == 1:  # of a norm, whatever its class
            norms.update(map(id, own.values()))
        elif "bias" in own:
            biases.add(id(own["bias"]))
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        special = None
        if id(parameter) in norms:
            special = settings.norm_weight_decay
        elif id(parameter) in biases:
            special = settings.bias_weight_decay
        groups.setdefault(settings.weight_decay if special is None else special, []).append(parameter)
    return groups
