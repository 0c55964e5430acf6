"""A reader who types the commands of a page, one after the other, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, files_told


def settle(folder: Path) -> Path:
    """A folder with the command `megdet` and the files that the pages tell to write."""
    programs = folder / "bin"
    programs.mkdir()
    megdet = programs / "megdet"
    megdet.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m megdet.cli "$@"\n')
    megdet.chmod(0o755)
    for name, content in files_told().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def type_in(folder: Path, command: str) -> str:
    """What a block of commands prints; it must not fail."""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
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
