"""The running average of the weights (Polyak and Juditsky 1992), which evaluation and everything after it use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """An exponential moving average of all weights of a model and of its running BN statistics; torch's arithmetic.

    Running statistics are averaged like the weights, with the same decay, so that they are those of the weights that
    the average is of. The average is a function of the steps alone: all ranks have the same.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begins with the weights that `model` has."""
        self._model, self._decay = model, decay
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, step: int) -> None:
        """Step `step` (from 1) is done.

        In the first steps the decay is smaller, (1 + step) / (10 + step): else the random weights of the beginning
        would still be in the average after thousands of steps.
        """
        update = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        now = self._model.state_dict()
        moving = [name for name, value in now.items() if value.is_floating_point()]
        update([self._average[name] for name in moving], [now[name] for name in moving], step)
        for name in now.keys() - set(moving):  # counters of batches
            self._average[name].copy_(now[name])

    def state_dict(self) -> dict[str, Tensor]:
        """As the model's, with references to the averages."""
        return self._average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """What `state_dict` gave."""
        for name, value in self._average.items():
            value.copy_(state[name])

    @torch.no_grad()
    def exchange(self) -> None:
        """Give the model the averages and keep its weights instead; the second time puts all back, bit for bit."""
        for name, value in self._model.state_dict().items():
            own = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(own)


@contextmanager
def evaluated_weights(average: WeightAverage | None) -> Iterator[None]:
    """Inside, the model of an average has the averaged weights; without an average, its own as ever."""
    if average is None:
        yield
        return
    average.exchange()
    try:
        yield
    finally:
        average.exchange()
