"""Verdicts on a loss: a diverged training is told from a converging and from a stalled one."""

from __future__ import annotations

import math

import pytest

from megdet.training.divergence import Diverged, LossWatch


def watch(losses: list[float], grad_norm: float = 1.0) -> LossWatch:
    loss_watch = LossWatch()
    for step, loss in enumerate(losses, start=1):
        loss_watch.see(step, loss=loss, grad_norm=grad_norm)
    return loss_watch


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_has_diverged_at_that_step(bad: float) -> None:
    with pytest.raises(Diverged, match="step 3: the loss is") as caught:
        watch([1.0, 1.0, bad])
    assert caught.value.step == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_has_diverged(bad: float) -> None:
    with pytest.raises(Diverged, match="gradient norm"):
        watch([1.0], grad_norm=bad)


def test_a_loss_that_explodes_without_overflow_has_diverged() -> None:
    falling = [2.0 * 0.98**i for i in range(150)]
    with pytest.raises(Diverged, match="its lowest was"):
        watch([*falling, *(falling[-1] * 1.3**i for i in range(60))])


@pytest.mark.parametrize(
    "losses",
    [
        [2.0 * 0.98**i for i in range(300)],
        [2.0] * 300,
        [0.3 + 3.0 * (i % 40 == 0) for i in range(300)],
        [0.7 * (1 + 0.5 * math.sin(i / 9)) for i in range(300)],
        [*(2.0 * 0.95**i for i in range(400)), *([0.5] * 150)],
    ],
    ids=["falling", "stalled", "single_spikes", "swinging", "back_below_its_start"],
)
def test_a_loss_that_falls_stalls_spikes_or_swings_has_not_diverged(losses: list[float]) -> None:
    assert watch(losses).steps == len(losses)


def test_a_loss_of_zero_has_not_diverged() -> None:
    assert watch([0.0] * 200).steps == 200


def test_the_first_steps_count_by_their_median() -> None:
    """An average would begin at a spike, or at 0, and take what follows for a fall or a rise."""
    loss_watch = watch([3.0] * 20 + [1e4, 1e6] + [2.0] * 28)
    assert loss_watch.first == loss_watch.lowest == loss_watch.smoothed == 2.0


def test_a_watch_restored_in_between_comes_to_the_same_verdict() -> None:
    losses = [2.0 * 0.98**i for i in range(150)]
    whole = watch(losses)
    first = watch(losses[:70])
    restored = LossWatch(**vars(first))
    for step, loss in enumerate(losses[70:], start=71):
        restored.see(step, loss=loss, grad_norm=1.0)
    assert restored == whole
