"""Totals of a step and of an epoch of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from megdet.errors import UserError
from megdet.training.noise_scale import NoiseSample, NoiseSums


@dataclass(frozen=True)
class Step:
    """One optimizer step, over all ranks."""

    step: int
    """Optimizer steps done, this one included."""
    lr: float
    losses: dict[str, float]
    """By the detector's names: means over the images of the batch (Eq. 1)."""
    counts: dict[str, float]
    """By the detector's names: sums over the images of the batch."""
    grad_norm: float
    noise: Mapping[str, NoiseSample] = field(default_factory=dict)
    """By module, where the step was measured."""
    lr_factors: dict[str, float] = field(default_factory=dict)
    """By module, what its learning rate is multiplied by; empty where all have the same."""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


@dataclass
class EpochTotals:
    """Sums over the steps of an epoch; goes into checkpoints, so an epoch resumed half-way reports all of itself."""

    steps: int = 0
    loss: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0
    train_s: float = 0.0
    noise: dict[str, NoiseSums] = field(default_factory=dict)
    """By module, over the steps that were measured."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EpochTotals:
        """From what `dataclasses.asdict` made of them. Raises TypeError where another version did."""
        noise = {module: NoiseSums(**sums) for module, sums in values.get("noise", {}).items()}
        return cls(**{**values, "noise": noise})

    def add(self, step: Step, seconds: float) -> None:
        """Add one step.

        Raises:
            UserError: where it has other names than the steps of the epoch before it.
        """
        if self.steps and (self.losses.keys(), self.counts.keys()) != (step.losses.keys(), step.counts.keys()):
            raise UserError(
                f"the detector reports {_listed(step.losses, step.counts)} at step {step.step}, and reported "
                f"{_listed(self.losses, self.counts)} earlier in this epoch: the code was edited while the run was "
                "interrupted; go on with the code as it was, or begin the run anew with sweep.on_existing=force"
            )
        self.steps += 1
        self.loss += step.loss
        self.grad_norm += step.grad_norm
        self.train_s += seconds
        for totals, values in ((self.losses, step.losses), (self.counts, step.counts)):
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value
        for module, sample in step.noise.items():
            self.noise.setdefault(module, NoiseSums()).add(sample)

    def means(self) -> dict[str, float]:
        """The means over the steps: `loss`, each of its parts by name, and `grad_norm`."""
        sums = {"loss": self.loss, **self.losses, "grad_norm": self.grad_norm}
        return {name: value / self.steps for name, value in sums.items()}


def _listed(*names: Iterable[str]) -> str:
    return ", ".join(name for group in names for name in group)
