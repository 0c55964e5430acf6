"""What a batch needs by the noise scale, against McCandlish's formulas and finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megdet.planning.critical_batch import EpochNoise, Progress, usual_batches

EPOCHS = [EpochNoise(1, 10.0, 2.0), EpochNoise(2, 40.0, 5.0), EpochNoise(3, 90.0, 20.0)]


def progress(epochs: list[EpochNoise]) -> Progress:
    return Progress(epochs, batch=16, steps=100)


def test_at_the_runs_own_batch_the_images_are_those_it_took_without_an_error() -> None:
    own = progress(EPOCHS).images(16)
    assert own.value == pytest.approx(3 * 100 * 16) and own.error == pytest.approx(0, abs=1e-9)


def test_with_one_noise_scale_it_is_the_relation_of_the_paper() -> None:
    one = progress([EpochNoise(1, 48.0, 4.8)])
    assert one.critical_batch().value == pytest.approx(48)
    assert one.critical_batch().error == pytest.approx(4.8)
    least_images = 48 * 100 / (1 + 48 / 16)
    assert one.images(48).value == pytest.approx(2 * least_images)  # the critical batch: twice the fewest images
    fewest_steps = 100 / (1 + 48 / 16)
    assert one.images(48).value / 48 == pytest.approx(2 * fewest_steps)  # and twice the fewest steps


def test_the_critical_batch_of_several_epochs_needs_twice_the_fewest_images_and_steps() -> None:
    whole = progress(EPOCHS)
    critical = whole.critical_batch().value
    assert 10 < critical < 90
    fewest_images = whole.images(1).value - (whole.images(2).value - whole.images(1).value)  # it is a line; at 0
    assert whole.images(round(critical)).value == pytest.approx(2 * fewest_images, rel=0.02)


@pytest.mark.parametrize("batch", [8, 64, 1024])
def test_errors_are_those_of_the_epochs_carried_through(batch: int) -> None:
    squares = {"images": 0.0, "critical": 0.0}
    for place, one in enumerate(EPOCHS):
        moved = [*EPOCHS]
        moved[place] = replace(one, scale=one.scale + 1e-4)
        for name, slope in (
            ("images", progress(moved).images(batch).value - progress(EPOCHS).images(batch).value),
            ("critical", progress(moved).critical_batch().value - progress(EPOCHS).critical_batch().value),
        ):
            squares[name] += (slope / 1e-4 * (one.error or 0)) ** 2
    assert progress(EPOCHS).images(batch).error == pytest.approx(squares["images"] ** 0.5, rel=1e-3)
    assert progress(EPOCHS).critical_batch().error == pytest.approx(squares["critical"] ** 0.5, rel=1e-3)


def test_an_epoch_without_an_error_leaves_the_sum_without_one() -> None:
    assert progress([*EPOCHS, EpochNoise(4, 50.0, None)]).images(32).error is None


def test_batches_go_beyond_four_times_the_critical_one_in_whole_bn_batches_within_an_epoch() -> None:
    assert usual_batches(batch=16, bn_size=16, critical=53, most=10_000) == [16, 32, 64, 128, 256]
    assert usual_batches(batch=96, bn_size=24, critical=10, most=10_000) == [24, 48, 96, 192]
    assert usual_batches(batch=16, bn_size=0, critical=53, most=100) == [16, 32, 64]
