"""The commands of docs/own-data.md, run one after the other as a reader would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import COMMANDS, ROOT, blocks, files_told

PAGE = ROOT / "docs" / "own-data.md"


def run(folder: Path, command: str) -> str:
    programs = folder / "bin"
    environment = {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A reader's folder, with the command `megdet`."""
    (tmp_path / "bin").mkdir()
    megdet = tmp_path / "bin" / "megdet"
    megdet.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m megdet.cli "$@"\n')
    megdet.chmod(0o755)
    return tmp_path


@pytest.mark.slow
def test_the_document_ends_with_a_result(desk: Path) -> None:
    outputs = []
    for name, content in files_told().items():
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text(content)
    for block in blocks(PAGE):
        if block.language in COMMANDS:
            outputs.append(run(desk, block.text))
        elif (
            block.language == "text" and "┃" not in block.text
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
