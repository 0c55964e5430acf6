"""The gradient noise scale, from the passes that a training step makes anyway: how much of a gradient is chance.

B = tr(Sigma) / |G|^2, where G is the gradient over all data and Sigma the covariance of one image's gradient: at a
batch of B images a step's gradient is as much chance as signal (McCandlish et al. 2018, arXiv 1812.06162, eq. 2.9).

A step's gradient is the mean of n gradients of as many images each: those of its passes, or of its BN groups where
several GPUs share a BN batch. With BN an image's gradient depends on its BN batch, so nothing smaller would do. From
the mean square s of the n norms, and the norm b of the step's gradient, appendix A.1 has two estimates without bias:

    |G|^2 = (n b^2 - s) / (n - 1)        tr(Sigma) = images x n (s - b^2) / (n - 1)

Their ratio has a bias where they are noisy; so both are summed over an epoch, and divided then. They take the n for
independent; images of one padding group are of one aspect ratio, and what that has in common counts as signal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megdet.runs.journal import NOISE_SCALE
from megdet.training.distributed import sum_over_ranks
from megdet.training.modules import modules_of

ALL = "all"


@dataclass(frozen=True)
class NoiseSample:
    """What one step says of some of the parameters; either may be negative by chance."""

    variance: float
    """Estimate of tr(Sigma), of the gradient of one image."""
    signal: float
    """Estimate of |G|^2."""

    @classmethod
    def of(cls, *, mean_square: float, square_of_mean: float, gradients: int, images: int) -> NoiseSample:
        """From `gradients` independent ones, each the mean over `images` images (appendix A.1)."""
        return cls(
            variance=images * gradients * (mean_square - square_of_mean) / (gradients - 1),
            signal=(gradients * square_of_mean - mean_square) / (gradients - 1),
        )


@dataclass
class NoiseSums:
    """Sums over the measured steps of an epoch."""

    steps: int = 0
    variance: float = 0.0
    signal: float = 0.0
    variance_squares: float = 0.0
    signal_squares: float = 0.0
    products: float = 0.0

    def add(self, sample: NoiseSample) -> None:
        self.steps += 1
        self.variance += sample.variance
        self.signal += sample.signal
        self.variance_squares += sample.variance**2
        self.signal_squares += sample.signal**2
        self.products += sample.variance * sample.signal

    def scale(self) -> float | None:
        """The noise scale in images; None where no signal was found."""
        return self.variance / self.signal if self.signal > 0 else None

    def error(self) -> float | None:
        """Its standard error, that of a ratio of two means over the same steps; None for fewer than two steps."""
        scale = self.scale()
        if scale is None or self.steps < 2:
            return None
        squares = self.variance_squares - 2 * scale * self.products + scale**2 * self.signal_squares
        return math.sqrt(max(squares, 0.0) * self.steps / (self.steps - 1)) / self.signal


def columns(by_module: Mapping[str, NoiseSums]) -> dict[str, float | None]:
    """What the journal's line on an epoch has of it: `noise_scale` of all parameters, `noise_scale.rpn` of a module's,
    in images; each with its standard error, `noise_scale_error`. Empty where no step was measured.
    """
    values: dict[str, float | None] = {}
    for module, sums in by_module.items():
        name = NOISE_SCALE if module == ALL else f"{NOISE_SCALE}.{module}"
        values |= {name: sums.scale(), f"{name}_error": sums.error()}
    return values


class NoiseMeter:
    """Measures every so many steps. Gradients stay what they are, bit for bit.

    A measured step holds the gradient of a pass once more, adds up its squares, and in BN groups sends it over the
    group, as often as it has passes.
    """

    def __init__(
        self, model: nn.Module, *, every: int, batch: int, gradients: int, group: dist.ProcessGroup | None = None
    ) -> None:
        """`gradients`: independent ones of a step of `batch` images; `group`: of the ranks that share BN batches."""
        if gradients < 2:
            raise ValueError("one gradient a step says nothing of its variance")
        self.every, self.batch, self.gradients, self.group = every, batch, gradients, group
        self._modules = modules_of(model)

    def of_step(self, number: int) -> StepGradients | None:
        """Begin to listen, where the step after `number` steps is one to be measured: the last of every `every`.

        AGVM takes the first of so many apart, and has no gradients of passes there.
        """
        if (number + 1) % self.every:
            return None
        images = self.batch // self.gradients
        # The loop scales each image's loss by this, so that DDP's mean over ranks is the mean over images.
        scale = images * dist.get_world_size() / self.batch
        return StepGradients(self._modules, gradients=self.gradients, images=images, scale=scale, group=self.group)


class StepGradients:
    """Listens to the gradients of one step, pass by pass, before they are added up and averaged over the ranks."""

    def __init__(
        self,
        modules: Mapping[str, Sequence[nn.Parameter]],
        *,
        gradients: int,
        images: int,
        scale: float,
        group: dist.ProcessGroup | None,
    ) -> None:
        """`scale`: what a gradient of a pass (summed over `group`) is, over the mean gradient of its images."""
        self._modules, self._group = modules, group
        self._gradients, self._images, self._scale = gradients, images, scale
        self._heard: dict[nn.Parameter, Tensor] = {}
        self._squares: list[list[Tensor]] = []
        self._hooks = [
            parameter.register_hook(self._listener(parameter)) for part in modules.values() for parameter in part
        ]

    def _listener(self, parameter: nn.Parameter) -> Callable[[Tensor], None]:
        def hear(gradient: Tensor) -> None:
            # A pass has several backwards where its images are padded to different sizes.
            before = self._heard.get(parameter)
            # A copy: what is handed on may be taken as it is, and added to in the next pass.
            self._heard[parameter] = gradient.detach().clone() if before is None else before + gradient.detach()

        return hear

    def pass_is_over(self) -> None:
        """Add up the squares of the pass's gradients. Collective in BN groups."""
        squares = []
        for parameters in self._modules.values():
            parts = [self._heard.pop(one, None) for one in parameters]
            vector = torch.cat(
                [
                    (torch.zeros_like(one) if part is None else part).reshape(-1)
                    for one, part in zip(parameters, parts, strict=True)
                ]
            )
            if self._group is not None:
                dist.all_reduce(vector, group=self._group)
            squares.append(_square(vector))
        self._squares.append(squares)

    def end(self) -> dict[str, NoiseSample]:
        """What the step says, by module and of `all`. Collective; to be called where `.grad` is the step's gradient."""
        for hook in self._hooks:
            hook.remove()
        of_passes = torch.stack([torch.stack(squares) for squares in self._squares]).sum(0)
        # All ranks of a BN group have added up the same.
        sharing = dist.get_world_size(self._group) if self._group is not None else 1
        of_passes = sum_over_ranks(of_passes) / (sharing * self._gradients * self._scale**2)
        of_step = torch.stack(
            [
                torch.stack([_square(one.grad) for one in part if one.grad is not None]).sum()
                for part in self._modules.values()
            ]
        )
        both = torch.stack([of_passes, of_step])
        both = torch.cat([both.sum(1, keepdim=True), both], dim=1)
        return {
            module: NoiseSample.of(
                mean_square=mean_square, square_of_mean=square_of_mean, gradients=self._gradients, images=self._images
            )
            for module, mean_square, square_of_mean in zip([ALL, *self._modules], *both.tolist(), strict=True)
        }


def _square(vector: Tensor) -> Tensor:
    """float64 scalar on its device: the squared norm."""
    norm: Tensor = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return norm.square()
