"""The commands of docs/extending.md: its parts keep the promise, train, and are rows of one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import COMMANDS, ROOT, blocks
from tests.docs.reader import settle, type_in

PAGE = ROOT / "docs" / "extending.md"


@pytest.mark.slow
def test_the_parts_of_the_page_train_and_make_a_table(tmp_path: Path) -> None:
    folder = settle(tmp_path)
    checked, trained = (type_in(folder, block.text) for block in blocks(PAGE) if block.language in COMMANDS)
    for said in ("my_backbone.plain", "my_pool.Finest", "my_optimizer.sparing", "my_schedule.Cosine"):
        assert said in checked
    assert "What is learned does not depend on the layout." in checked
    assert "5 to do" in trained and trained.count(": finished") == 5
    rows = [line for line in trained.splitlines() if line.startswith("| ")][1:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "as it comes", "plain backbone", "decay on matrices alone", "cosine", "finest level",
    ]  # fmt: skip
    assert all("\N{EN DASH}" not in row for row in rows), "each row has found its run"
