"""Values from files that may be damaged are checked, and messages about them stay short."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from megdet.runs.checked import checked
from megdet.runs.status import Stand, Status


@dataclass(frozen=True)
class Weather:
    place: str
    degrees: float = 0.0


def test_values_of_the_right_kinds_make_a_dataclass() -> None:
    assert checked(Weather, {"place": "Kyoto", "degrees": 3}) == Weather("Kyoto", 3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"place": "Kyoto", "[" * 5000: 1}, "it has .*, which is not known"),
        ({"place": ["x" * 5000]}, "'place' is .*, which it cannot be"),
        ({"place": "Kyoto", "degrees": float("nan")}, "'degrees' is nan, which it cannot be"),
        ({}, "it lacks 'place'"),
        ([], "it holds no object"),
    ],
)
def test_others_are_refused_in_few_words(values: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        checked(Weather, values)
    assert len(str(refused.value)) < 100


def test_the_reason_of_a_stand_is_one_line_whatever_was_written() -> None:
    assert Stand(Status.FAILED, "a\x1b[31m\nb  c").why == "a\\x1b[31m b c"
    assert Stand(Status.FAILED, "disk  full").why == "disk  full"
