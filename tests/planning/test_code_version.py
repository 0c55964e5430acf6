"""Whether the code is that of its commit, in a real checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from megdet.planning.code_version import code_version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of git as ours is, with its code committed."""
    folder = tmp_path / "checkout"
    for name in ("megdet/model/new.py", "conf/model/new.yaml", "runs/b16/plan.json"):
        (folder / name).parent.mkdir(parents=True)
    (folder / "megdet/run.py").write_text("pass\n")
    (folder / "README.md").write_text("read me\n")
    (folder / ".gitignore").write_text("conf/cluster/\n")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.mark.parametrize("name", ["megdet/model/new.py", "conf/model/new.yaml", "megdet/run.py"])
def test_code_that_is_changed_or_new_is_not_as_committed(checkout: Path, name: str) -> None:
    commit, dirty = code_version(checkout)
    assert len(commit) == 40 and not dirty
    (checkout / name).write_text("new\n")
    assert code_version(checkout) == (commit, True)


def test_runs_data_and_notes_of_a_user_leave_the_code_as_committed(checkout: Path) -> None:
    for name in ("runs/b16/plan.json", "data/convert.py", "megdet/notes.txt", "conf/cluster/mine.yaml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("new\n")
    assert code_version(checkout)[1] is False
