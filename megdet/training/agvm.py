"""AGVM, the adaptive gradient variance modulator (Xue et al. 2022, arXiv 2210.11078): a learning rate for each module.

In large batches the variance of the gradient differs between modules, and one learning rate no longer suits all of
them. AGVM compares the gradients of two halves of a batch, module by module, and steps further where they agree better
than the backbone's do:

    variance   Phi_i = 1 - cos(g_i of the first half, g_i of the second half)
    ratio      r_i   = sqrt(Phi_anchor / Phi_i)
    factor     mu_i <- alpha mu_i + (1 - alpha) r_i, every `interval` steps, from 1 at the end of the warm-up
    step       w_i  <- w_i - lr mu_i m_i, with SGD's momentum m_i

The anchor is the backbone. That r^2 is kept between 0.5 and 10, alpha = 0.97, and that it begins after the warm-up are
the authors' choices in their code (github.com/Sense-X/AGVM), which the paper's algorithm leaves open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from megdet.config.optimizer import AgvmSettings
from megdet.errors import UserError
from megdet.training.modules import BACKBONE

ANCHOR = BACKBONE
LOWEST, HIGHEST = 0.5, 10.0
"""Of the ratio of two variances, in one measurement."""
_EPS = 1e-6


class AGVM(torch.optim.SGD):
    """SGD with momentum, whose learning rate is multiplied in each module by a factor of its own.

    A parameter group belongs to one module, by its entry "module"; its factor is the entry "factor", so that it goes
    into checkpoints.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        *,
        lr: float,
        momentum: float,
        settings: AgvmSettings,
        first_step: int,
    ) -> None:
        """`first_step`: from this one on gradients are compared, and factors leave 1.

        Raises UserError where no group is of the backbone.
        """
        assert settings.interval is not None
        self.interval, self.alpha, self.first_step = settings.interval, settings.alpha, first_step
        if not any(group["module"] == ANCHOR for group in groups):
            raise UserError(
                "optimizer=agvm measures the other modules by the backbone, and model.backbone.frozen_stages leaves "
                "nothing of it to train; freeze fewer stages, or use optimizer=sgd"
            )
        super().__init__([{**group, "factor": 1.0} for group in groups], lr=lr, momentum=momentum)

    @property
    def factors(self) -> dict[str, float]:
        """By module."""
        return {group["module"]: group["factor"] for group in self.param_groups}

    def compares_at(self, step: int) -> bool:
        """Whether the step that follows `step` finished ones is to be taken by `compare`."""
        return step >= self.first_step and step % self.interval == 0

    @torch.no_grad()
    def compare(self, first: Mapping[Parameter, Tensor], second: Mapping[Parameter, Tensor]) -> None:
        """Move the factors by the gradients of the two halves of a batch, the same on all ranks."""
        variances = {
            module: 1 - _cosine((first[p], second[p]) for group in self._groups_of(module) for p in group["params"])
            for module in self.factors
        }
        anchor = variances[ANCHOR]
        for group in self.param_groups:
            ratio = (anchor + _EPS) / (variances[group["module"]] + _EPS)
            measured = min(max(ratio, LOWEST), HIGHEST) ** 0.5
            group["factor"] = self.alpha * group["factor"] + (1 - self.alpha) * measured

    def _groups_of(self, module: str) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["module"] == module]

    def step(self, closure: Any = None) -> Any:
        """As SGD's, each group with its "lr" times its "factor"."""
        asked = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= group["factor"]
        try:
            return super().step(closure)
        finally:
            for group, lr in zip(self.param_groups, asked, strict=True):
                group["lr"] = lr


def _cosine(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Of two gradients that are given tensor by tensor, in float64; 0 where one of them is zero."""
    products = torch.stack(
        [
            torch.stack([(a * b).sum(), a.square().sum(), b.square().sum()])
            for a, b in ((one.double(), other.double()) for one, other in pairs)
        ]
    )
    dot, first, second = products.sum(0).tolist()
    norms = (first * second) ** 0.5
    return dot / norms if norms else 0.0
