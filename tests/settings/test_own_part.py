"""Own parts: their form is checked without importing anything; making one gives one message for whatever goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from megdet.errors import UserError
from megdet.settings.own_part import OwnPart, check_own_name, make


@pytest.mark.parametrize(
    "custom",
    [
        {"_target_": "my_package.MyBackbone", "width": 64},
        {"_target_": "my_package.parts:Factory.make"},
        {"_target_": "a.b", "betas": [0.9, 0.999], "nested": {"depth": 3, "name": "x"}, "none": None, "on": True},
    ],
)
def test_the_form_of_an_own_part_is_a_dotted_path_and_plain_keyword_arguments(custom: dict[str, Any]) -> None:
    assert OwnPart().instead_of(custom) is None


@pytest.mark.parametrize(
    ("custom", "named"),
    [
        ("my_package.MyBackbone", "_target_"),
        ({}, "_target_"),
        ({"width": 64}, "_target_"),
        ({"_target_": None}, "null"),
        ({"_target_": "MyBackbone"}, "MyBackbone"),
        ({"_target_": "../mine.py"}, "../mine.py"),
        ({"_target_": "my_package..MyBackbone"}, "my_package..MyBackbone"),
        ({"_target_": "my_package.class"}, "my_package.class"),
        ({"_target_": "a.b", "_partial_": True}, "_partial_"),
        ({"_target_": "a.b", "two words": 1}, "two words"),
        ({"_target_": "a.b", "lambda": 1}, "lambda"),
        ({"_target_": "a.b", "width": float("nan")}, "width"),
        ({"_target_": "a.b", "width": 2**60}, "width"),
        ({"_target_": "a.b", "text": "two\nlines"}, "text"),
        ({"_target_": "a.b", "inner": {"_target_": "c.D"}}, "inner"),
        ({"_target_": "a.b", "made": object()}, "made"),
    ],
)
def test_another_form_is_refused_with_what_is_wrong_about_it(custom: object, named: str) -> None:
    instead = OwnPart().instead_of(custom)
    assert instead is not None and named in instead and "\n" not in instead


def test_an_own_part_has_a_name_of_its_own() -> None:
    check_own_name("model.backbone.", "resnet50", None, ("resnet50",))
    check_own_name("model.backbone.", "mine", {"_target_": "a.b"}, ("resnet50",))
    with pytest.raises(UserError, match=r"^model\.backbone\.name=mine: use one of resnet50, or .*model\.backbone\.cus"):
        check_own_name("model.backbone.", "mine", None, ("resnet50",))
    with pytest.raises(UserError, match=r"model\.backbone\.name=resnet50 is the name of a built-in"):
        check_own_name("model.backbone.", "resnet50", {"_target_": "a.b"}, ("resnet50",))


def test_an_own_part_is_called_with_what_its_slot_gives_and_with_its_own_arguments() -> None:
    assert make("optimizer.custom", {"_target_": "datetime.timedelta", "hours": 3}, 1, minutes=5) == timedelta(
        days=1, hours=3, minutes=5
    )
    assert make("optimizer.custom", {"_target_": "datetime:timedelta", "hours": 3}) == timedelta(hours=3)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of which modules can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("custom", "words"),
    [
        ({"_target_": "no_such_package.Part"}, ["no_such_package.Part cannot be imported", "PYTHONPATH"]),
        ({"_target_": "datetime.Timedelta"}, ["datetime.Timedelta cannot be imported"]),
        ({"_target_": "datetime.MAXYEAR"}, ["datetime.MAXYEAR is 9999", "neither a class nor a function"]),
        ({"_target_": "datetime.timedelta", "ours": 3}, ["could not be made", "TypeError", "ours"]),
        ({"_target_": "datetime.timedelta", "days": 3}, ["leave out days"]),
        ({"_target_": "own_parts_broken.Part"}, ["own_parts_broken.Part failed", "own_parts_broken.py, line 2"]),
        ({"_target_": "own_parts_raising.part"}, ["RuntimeError: no such width", "own_parts_raising.py, line 2"]),
    ],
)  # fmt: skip
def test_whatever_goes_wrong_is_one_message_that_names_the_key(
    custom: Mapping[str, Any], words: list[str], package: Path
) -> None:
    (package / "own_parts_broken.py").write_text("import math\n1 / 0\nPart = math\n")
    (package / "own_parts_raising.py").write_text("def part(days):\n    raise RuntimeError('no such\\nwidth')\n")
    with pytest.raises(UserError) as refused:
        make("model.backbone.custom", custom, days=1)
    message = str(refused.value)
    assert message.startswith("model.backbone.custom: ") and "\n" not in message
    assert all(word in message for word in words), message
