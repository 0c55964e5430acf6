"""Losses that misled the rule on divergence once, and real curves: each is judged as a person would judge it.

`loss_curves.json` has the losses of real trainings of the `tiny` detector on generated images of 64 pixels (64 of them,
batch=8, 75 epochs of 8 steps, one rank), at rates up to 400 times the usual one, with the rule switched off.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from megdet.training.divergence import COLLAPSE_STEPS, Diverged, LossWatch

CURVES: dict[str, list[float]] = json.loads(Path(__file__).with_name("loss_curves.json").read_text())


def judge(losses: list[float]) -> int | None:
    """The step at which a run has diverged; None where it has not."""
    watch = LossWatch()
    for step, loss in enumerate(losses, start=1):
        try:
            watch.see(step, loss=loss, grad_norm=1.0)
        except Diverged as diverged:
            return diverged.step
    return None


def falling(steps: int, *, to: float = 0.7, seed: int = 0) -> list[float]:
    """From 3 to `to`, with the noise of batches."""
    noise = random.Random(seed)
    return [to + (3.0 - to) * 0.98**step + noise.uniform(-0.2, 0.2) * to for step in range(steps)]


def test_one_bad_step_ends_no_run() -> None:
    losses = falling(600)
    losses[400] = 150.0
    assert judge(losses) is None


def test_some_bad_steps_in_a_row_end_no_run() -> None:
    losses = falling(600)
    losses[400:410] = [1e6] * 10
    assert judge(losses) is None


@pytest.mark.parametrize("spike_at", [0, 4, 48])
def test_a_spike_at_the_start_does_not_blind_the_rule(spike_at: int) -> None:
    losses = falling(300)
    losses[spike_at] = 1e4
    exploding = [losses[-1] * 1.3**step for step in range(100)]
    assert judge(losses) is None
    found = judge([*losses, *exploding])
    assert found is not None and 300 < found <= 360


def test_a_collapse_to_a_plateau_is_seen() -> None:
    noise = random.Random(1)
    plateau = [2.3 + noise.uniform(-0.05, 0.05) for _ in range(1000)]
    found = judge([*falling(600), *plateau])
    assert found is not None and 600 + COLLAPSE_STEPS <= found <= 600 + COLLAPSE_STEPS + 100
    assert judge([*falling(600), *plateau[:300], *falling(600)]) is None, "it came back"


def test_the_step_down_of_a_schedule_and_a_later_rise_to_half_of_it_are_no_divergence() -> None:
    low, noise = falling(400, to=0.4), random.Random(2)
    assert judge([*falling(400), *low[200:], *(0.9 + noise.uniform(-0.1, 0.1) for _ in range(900))]) is None


@pytest.mark.parametrize("name", CURVES)
def test_a_real_curve_is_judged_as_a_person_would(name: str) -> None:
    """At 400 times the rate the loss leaves for 4e21 in 13 steps and is then infinite: `isfinite` ends that one. At 150
    times it has a spike of 6e5 in step 21 and comes back."""
    losses = CURVES[name]
    assert judge(losses) is None
    if len(losses) >= 600:
        found = judge([*losses, *(losses[-1] * 1.3**step for step in range(100))])
        assert found is not None and found > len(losses), "an explosion at the end of it is seen"
