"""The Makefile, where a mistake costs a user something."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def make(folder: Path, *words: str) -> str:
    done = subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_clean_removes_the_demo_and_nothing_of_a_users_own(tmp_path: Path) -> None:
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("demo/runs", "runs", "results", "data/shapes", "mlartifacts", "conf"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mlflow.db").touch()
    before = {path.name for path in tmp_path.iterdir()}
    make(tmp_path, "clean")
    assert before - {path.name for path in tmp_path.iterdir()} == {"demo"}


def test_help_explains_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    explained = re.findall(r"^([a-z-]+) +\S", make(MAKEFILE.parent, "help"), re.MULTILINE)
    assert sorted(explained) == sorted(" ".join(targets).split())
