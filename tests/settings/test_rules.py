"""What a rule takes and refuses, and what a user reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from megdet.errors import UserError
from megdet.settings.rules import (
    MOST,
    Each,
    Flag,
    Name,
    Number,
    OneOf,
    Rule,
    Settings,
    Text,
    TextByName,
    Whole,
    setting,
    shown,
)


@dataclass
class Inner(Settings):
    width: int = setting(64, Whole(least=1))
    ratios: list[float] = setting([0.5], Each(Number(above=0), least=1))


@dataclass
class Outer(Settings):
    limit: float | None = setting(None, Number(above=0), why="null means no limit")
    inner: Inner = field(default_factory=Inner)

    def check_together(self, prefix: str) -> None:
        if self.limit is not None and self.limit < self.inner.width:
            raise UserError(f"{prefix}limit={self.limit:g} is below {prefix}inner.width={self.inner.width}")


@pytest.mark.parametrize(
    ("rule", "taken", "refused"),
    [
        (Whole(least=1), [1, 5, MOST], [0, -1, MOST + 1, 2**70, 1.0, True, "1", None, [1]]),
        (Whole(most=5, or_auto=True), [0, 5, "auto"], [6, "Auto", None]),
        (Number(), [0, 0.5, 1e12], [10**400, -0.1, float("nan"), float("inf"), 1e13, "0.5", False, None]),
        (Number(above=0, most=1), [1e-9, 1, 1.0], [0, 0.0, 1.01]),
        (OneOf(("auto", True, False)), ["auto", True, False], [1, 0, "true", None]),
        (Flag(), [True, False], [1, 0, "yes", None]),
        (Name(), ["normal", "b16-x_2.yaml", "_a", "7"], ["", "a/b", "..", ".hidden", "-x", "a b", "é", "x" * 65, 5]),
        (Text(), ["data/coco 2017", "ü"], ["", "  ", "two\nlines", "bell\a", 5, None]),
        (Text(many_lines=True), ["if true\n\tmodule load cuda"], ["", "bell\a", None]),
        (Each(Whole(least=1)), [[], [1, 2]], [[1, 0], [1, "2"], (1, 2), "12", None, 1]),
        (Each(Flag(), least=1), [[True]], [[]]),
        (TextByName(), [{}, {"exclude": "node[3-4]"}], [{"exclude": 3}, {3: "a"}, {"a b": "c"}, ["exclude"], None]),
    ],
)  # fmt: skip
def test_a_rule_takes_what_makes_sense_and_says_what_to_use_instead_of_the_rest(
    rule: Rule, taken: list[object], refused: list[object]
) -> None:
    assert [value for value in taken if rule.instead_of(value) is not None] == []
    assert [value for value in refused if not rule.instead_of(value)] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Inner(width=0), "model.width=0: use a whole number of at least 1"),
        (Inner(width=2**40), f"model.width={2**40}: use a whole number of at most {MOST}"),
        (Inner(ratios=[0.5, 0.0]), "model.ratios=[0.5, 0]: use a list whose every entry is a number above 0"),
        (Inner(ratios=[]), "model.ratios=[]: use a list of at least 1"),
        (Outer(limit=-1.0), "model.limit=-1: use a number above 0, or null (null means no limit)"),
        (Outer(inner=Inner(width=-3)), "model.inner.width=-3: use a whole number of at least 1"),
        (Outer(inner=5), "model.inner=5: use its keys, such as model.inner.width"),  # type: ignore[arg-type]
        (Outer(limit=math.inf), "model.limit=inf: use a finite number above 0, or null (null means no limit)"),
        (Outer(limit=3.0), "model.limit=3 is below model.inner.width=64"),
    ],
)
def test_a_mistake_is_one_message_with_the_whole_key_and_what_to_use(settings: Settings, message: str) -> None:
    with pytest.raises(UserError) as refused:
        settings.check("model.")
    assert str(refused.value) == message


def test_settings_that_make_sense_are_taken_and_defaults_are_not_shared() -> None:
    first, second = Outer(), Outer(limit=64.0)
    first.check()
    second.check()
    first.inner.ratios.append(2.0)
    assert Inner().ratios == [0.5]


def test_values_are_shown_as_yaml_has_them_and_never_at_great_length() -> None:
    assert shown([True, None, 8, "a", ""]) == "[true, null, 8, a, '']"
    assert shown({"_target_": "a.B", "width": 0.5}) == "{_target_: a.B, width: 0.5}"
    assert shown("two\nlines") == r"'two\nlines'"
    for long in (list(range(1000)), "x" * 1000, 10**5000):
        assert len(shown(long)) < 130
