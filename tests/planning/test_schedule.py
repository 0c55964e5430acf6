"""The learning rate of every step, against closed forms and the paper's epochs."""

from __future__ import annotations

import itertools

import pytest

from megdet.config.schedule import LearningRateSettings, ScheduleSettings
from megdet.errors import UserError
from megdet.planning.schedule import Schedule, make_schedule

LONG = ScheduleSettings(name="long", epochs=18, milestones=[11, 14, 17], factors=[0.1, 0.1, 0.5])


def schedule_of(
    batch: int, *, train_images: int = 118287, schedule: ScheduleSettings | None = None, scale: float = 1.0
) -> Schedule:
    return make_schedule(
        schedule or ScheduleSettings(), lr=LearningRateSettings(scale=scale), batch=batch, train_images=train_images
    )


@pytest.mark.parametrize(
    ("batch", "scale", "lr"),
    [(16, 1, 0.02), (32, 1, 0.04), (64, 0.5, 0.04), (128, 0.5, 0.08), (256, 1, 0.32), (2, 1, 0.0025)],
)
def test_the_learning_rate_grows_linearly_with_the_batch(batch: int, scale: float, lr: float) -> None:
    assert schedule_of(batch, scale=scale).lr == pytest.approx(lr, rel=1e-12)


def test_an_epoch_drops_the_images_left_over() -> None:
    schedule = schedule_of(256)
    assert (schedule.steps_per_epoch, schedule.steps) == (462, 5082)
    assert schedule_of(64, train_images=64).steps_per_epoch == 1


def test_an_epoch_without_a_step_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch=256 is larger than data\.train_images=255.*batch=255"):
        schedule_of(256, train_images=255)


def test_the_normal_schedule_drops_at_8_and_10_epochs_and_ends_at_11() -> None:
    schedule = schedule_of(16)
    epoch = schedule.steps_per_epoch
    expected = {0: 0.02, 8 * epoch - 1: 0.02, 8 * epoch: 0.002, 10 * epoch - 1: 0.002, 10 * epoch: 0.0002}
    for step, lr in {**expected, 11 * epoch - 1: 0.0002}.items():
        assert schedule.lr_at(step) == pytest.approx(lr, rel=1e-12), step
    assert schedule.steps == 11 * epoch


def test_the_long_schedule_drops_at_11_and_14_halves_at_17_and_ends_at_18() -> None:
    schedule = schedule_of(16, schedule=LONG)
    epoch = schedule.steps_per_epoch
    for epochs, lr in ((10.5, 0.02), (11, 0.002), (13.5, 0.002), (14, 0.0002), (16.5, 0.0002), (17, 0.0001)):
        assert schedule.lr_at(int(epochs * epoch)) == pytest.approx(lr, rel=1e-12), epochs
    assert schedule.steps == 18 * epoch


def test_the_warm_up_adds_the_same_amount_after_every_step() -> None:
    schedule = schedule_of(256)
    rates = [schedule.lr_at(step) for step in range(470)]
    assert schedule.warmup_steps == 462
    assert rates[0] == 0.02
    for step in range(462):
        assert rates[step + 1] - rates[step] == pytest.approx((0.32 - 0.02) / 462, rel=1e-6)
    assert rates[462] == rates[469] == schedule.lr == pytest.approx(0.32, rel=1e-12)


@pytest.mark.parametrize(("batch", "scale"), [(16, 1.0), (8, 1.0), (2, 1.0), (32, 0.5)])
def test_there_is_no_warm_up_where_the_rate_is_not_above_the_base(batch: int, scale: float) -> None:
    schedule = schedule_of(batch, scale=scale)
    assert schedule.warmup_steps == 0
    assert schedule.lr_at(0) == schedule.lr_at(1) == schedule.lr


def test_the_warm_up_may_be_given_in_epochs_or_in_images() -> None:
    assert schedule_of(64, schedule=ScheduleSettings(warmup_epochs=0.5)).warmup_steps == 924
    in_images = ScheduleSettings(warmup_epochs=None, warmup_images=6401)
    assert schedule_of(64, schedule=in_images).warmup_steps == 101
    assert schedule_of(64, schedule=ScheduleSettings(warmup_epochs=None)).warmup_steps == 0
    assert schedule_of(64, schedule=ScheduleSettings(warmup_epochs=0)).lr_at(0) == pytest.approx(0.08)


def test_a_warm_up_in_epochs_and_in_images_is_refused() -> None:
    both = ScheduleSettings(warmup_epochs=1, warmup_images=1000)
    with pytest.raises(UserError, match=r"warmup_epochs=1 .*warmup_images=1000.*warmup_epochs=null"):
        both.check("schedule.")


def test_a_warm_up_beyond_the_first_drop_is_refused() -> None:
    with pytest.raises(UserError, match=r"warm-up of 16632 steps .* step 14784"):
        schedule_of(64, schedule=ScheduleSettings(warmup_epochs=9))


def test_after_the_warm_up_the_rate_never_rises() -> None:
    for batch, schedule in itertools.product((16, 64), (ScheduleSettings(), LONG)):
        planned = schedule_of(batch, schedule=schedule, train_images=1000)
        rates = [planned.lr_at(step) for step in range(planned.warmup_steps, planned.steps)]
        assert rates == sorted(rates, reverse=True)


def test_a_schedule_without_milestones_keeps_its_rate() -> None:
    constant = schedule_of(16, schedule=ScheduleSettings(milestones=[], factors=[]))
    assert constant.lr_at(constant.steps - 1) == constant.lr


def test_the_warm_up_starts_where_it_is_asked_to_and_there_is_one_wherever_lr_is_above_that() -> None:
    def asked(batch: int, start: float) -> Schedule:
        lr = LearningRateSettings(warmup_start=start)
        return make_schedule(ScheduleSettings(), lr=lr, batch=batch, train_images=1600)

    from_nothing = asked(16, 0.0)
    assert (from_nothing.lr, from_nothing.warmup_steps) == (0.02, 100)
    assert [from_nothing.lr_at(step) for step in (0, 50, 100)] == pytest.approx([0.0, 0.01, 0.02], abs=1e-12)
    assert asked(16, 0.02).warmup_steps == 0 and asked(32, 0.03).lr_at(0) == 0.03
