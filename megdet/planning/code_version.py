"""The version of the code: its commit, and whether it has uncommitted changes."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from megdet import __version__
from megdet.config.locations import CHECKOUT, PACKAGE

CODE = ("megdet/*.py", "hydra_plugins/*.py")
"""New files that count as changed code; a star reaches into folders. A user's own YAML files (conf/cluster/mine.yaml)
do not count: what they say is in the plan."""


def code_version(checkout: Path | None = CHECKOUT) -> tuple[str, bool]:
    """The commit of the code and whether anything is changed or new; `unknown` outside of git.

    An installed wheel (`checkout` None) has its release instead of a commit: `v0.1.0`.
    """
    if checkout is None:
        return f"v{__version__}", False
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return commit, bool(changed or _git(checkout, "ls-files", "--others", "--exclude-standard", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


@cache
def code_sha256() -> str:
    """Of all source files of this package, as they were when it was asked first."""
    return sha256_of_sources(PACKAGE)


def sha256_of_sources(package: Path) -> str:
    """The SHA-256 over names and content of a package's source files."""
    digest = hashlib.sha256()
    for path in source_files(package):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def source_files(package: Path) -> list[Path]:
    """The source files of a package, in order."""
    return sorted(package.rglob("*.py"))


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
