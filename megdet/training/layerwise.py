"""LARS and LAMB (You et al. 2017, 2020): the learning rate of each tensor follows its size, for very large batches.

The steps themselves are timm's. Vectors (norms and biases) have neither weight decay nor a rate of their own, as in
the authors' recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from megdet.errors import UserError


def lars(
    parameters: Sequence[Parameter], *, lr: float, momentum: float, weight_decay: float, trust_coefficient: float
) -> torch.optim.Optimizer:
    """Momentum SGD in which a tensor moves by `lr` x `trust_coefficient` x |weights| / |gradient + decay|."""
    named = {"momentum": momentum, "trust_coeff": trust_coefficient}
    optimizer: torch.optim.Optimizer = _timm().Lars(_groups(parameters, weight_decay), lr=lr, **named)
    return optimizer


def lamb(parameters: Sequence[Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adam in which a tensor moves by `lr` x |weights|, in the direction that Adam and decay give.

    timm's clips the whole gradient at a norm of 1 first, as the authors do.
    """
    optimizer: torch.optim.Optimizer = _timm().Lamb(_groups(parameters, weight_decay), lr=lr)
    return optimizer


def _groups(parameters: Sequence[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    # timm gives a rate of its own to what has weight decay.
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _timm() -> Any:
    try:
        import timm.optim
    except ImportError as error:
        raise UserError(
            f"this optimizer is timm's, which cannot be imported here ({error}): pip install 'megdet[optimizers]'"
        ) from error
    return timm.optim
