"""The commands of docs/own-data.md, run one after the other as a reader would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import COMMANDS, ROOT, blocks
from tests.docs.reader import settle, type_in

PAGE = ROOT / "docs" / "own-data.md"


@pytest.mark.slow
def test_the_document_ends_with_a_result(tmp_path: Path) -> None:
    desk = settle(tmp_path)
    outputs = []
    for block in blocks(PAGE):
        if block.language in COMMANDS:
            outputs.append(type_in(desk, block.text))
        elif (
            block.language == "text" and "────" not in block.text
        ):  # what the document shows of the last command's output; times and ids are another's
            shown = [line.strip() for line in block.text.splitlines() if line.strip() not in ("", "...")]
            said = [re.sub(r"\s+", " ", line).strip() for line in outputs[-1].splitlines()]
            for line in shown:
                # Sizes in bytes, and with them the fingerprint, are those of this machine's zlib.
                line = re.sub(r"fingerprint \w+", "fingerprint", re.sub(r"\s+", " ", line))
                assert line in [re.sub(r"fingerprint \w+", "fingerprint", other) for other in said], line
    assert "2 new" in outputs[2] and "114" in outputs[2]
    journals = list(desk.glob("runs/*/metrics.jsonl"))
    assert len(journals) == 2
    for journal in journals:
        epochs = [json.loads(line) for line in journal.read_text().splitlines() if '"kind": "epoch"' in line]
        assert [line["epoch"] for line in epochs] == [1, 2, 3, 4, 5, 6]
        assert epochs[-1]["mmAP"] > 40, "what it is told to learn, it has learned"
    assert "Table 3" in outputs[4] and "custom" in outputs[4]
