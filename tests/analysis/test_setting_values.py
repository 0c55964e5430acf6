from __future__ import annotations

import pandas as pd
import pytest

from megdet.analysis.setting_values import NOT_SET, numbers_in, setting_text, setting_value, typed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16), ("0.02", 0.02), ("1e-05", 1e-05), ("0", 0), ("-3", -3), ("true", True), ("false", False),
        ("resnet50", "resnet50"), ("007", "007"), ("1e5", "1e5"), ("nan", "nan"), ("inf", "inf"), ("", ""),
        ("[8, 10]", "[8, 10]"), ("True", "True"),
    ],
)  # fmt: skip
def test_a_settings_text_is_a_number_only_where_it_can_be_had_back(text: str, value: object) -> None:
    found = setting_value(text)
    assert found == value and type(found) is type(value) and setting_text(found) == text


@pytest.mark.parametrize(
    "texts",
    [["16", "0.5"], ["16", None], ["true", "false"], ["true", None], ["16", "auto"], ["1", "true"], [None, None]],
)
def test_a_column_is_of_one_type_and_gives_its_texts_back(texts: list[str | None]) -> None:
    column = typed(pd.Series(texts, dtype=object))
    assert [setting_text(value) for value in column] == [NOT_SET if text is None else text for text in texts]
    present = {type(value).__name__ for value in column if value == value and value is not None}
    assert len(present) <= 1


def test_the_numbers_of_a_list() -> None:
    assert numbers_in("[8, 10.5]") == [8, 10.5] and numbers_in("[]") == []
