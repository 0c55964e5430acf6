"""A sweep file that is a table too, before its rows train."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.sweep.rows_table import check_table


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("mmAPP", "did you mean mmAP?"),
        ("los", "did you mean loss?"),
        ("mmAP", ""),
        ("noise_scale.rpn", ""),
        ("loss_of_my_own_part", ""),
    ],
)
def test_a_number_that_is_nearly_one_of_every_runs_is_said(
    number: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"measure: {{Value: {number}}}\nrows: [{{ask: {{batch: 16}}}}]\n")
    check_table(str(file))
    found = capsys.readouterr().err
    assert found.rstrip().endswith(said) and bool(found) == bool(said)
