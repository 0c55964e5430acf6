from __future__ import annotations

from pathlib import Path

import pytest

from megdet.config import sweep_file
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError


@pytest.mark.parametrize("draft", ["title: no rows", "rows:", "rows: 5", "- a list", "", "rows: [", b"\xff"])
def test_a_mistyped_table_names_what_there_is_whatever_else_lies_beside(
    draft: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_file, "SWEEPS", tmp_path)
    (tmp_path / "mine.yaml").write_text("rows: [{ask: {batch: 16}}]")
    (tmp_path / "draft.yaml").write_bytes(draft if isinstance(draft, bytes) else draft.encode())
    with pytest.raises(UserError, match=r"sweep\.rows=mien: .* Did you mean mine\? Use one of mine, or the path"):
        read_rows("mien")
    with pytest.raises(UserError, match=r"draft\.yaml"):
        read_rows("draft")
