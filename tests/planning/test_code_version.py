"""Whether the code is that of its commit, in a real checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import megdet
from megdet.planning.code_version import code_version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of git as ours is, with its code committed."""
    folder = tmp_path / "checkout"
    for name in ("megdet/model/old.py", "hydra_plugins/mine/old.py", "conf/model/old.yaml", "sweeps/table3.yaml"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("old\n")
    (folder / "megdet/run.py").write_text("pass\n")
    (folder / "README.md").write_text("read me\n")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "megdet/model/new.py", "megdet/new.py", "hydra_plugins/mine/new.py",
        "megdet/run.py", "conf/model/old.yaml", "sweeps/table3.yaml",
    ],
)  # fmt: skip
def test_code_that_is_changed_or_new_is_not_as_committed(checkout: Path, name: str) -> None:
    commit, dirty = code_version(checkout)
    assert len(commit) == 40 and not dirty
    (checkout / name).write_text("new\n")
    assert code_version(checkout) == (commit, True)


@pytest.mark.parametrize(
    "name",
    [
        "conf/cluster/mine.yaml", "conf/experiment/mine.yaml", "conf/model/mine.yaml", "sweeps/mine.yaml",
        "runs/b16/plan.json", "data/convert.py", "megdet/notes.txt",
    ],
)  # fmt: skip
def test_what_a_user_adds_leaves_the_code_as_committed(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("new\n")
    assert code_version(checkout)[1] is False


def test_an_installed_megdet_is_named_by_its_release_whatever_git_lies_around_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    assert code_version(None) == (f"v{megdet.__version__}", False)


def test_a_checkout_without_git_is_of_no_known_commit(tmp_path: Path) -> None:
    assert code_version(tmp_path) == ("unknown", False)
