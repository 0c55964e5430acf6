"""Which code this is: its commit, and whether it differs from that."""

from __future__ import annotations

import subprocess
from pathlib import Path

from megdet.config.locations import CHECKOUT

CODE = tuple(
    f"{folder}/*.{kind}" for folder in ("megdet", "hydra_plugins", "conf", "sweeps") for kind in ("py", "yaml")
)
"""New files that decide what runs, unlike a user's own; a star reaches into folders."""


def code_version(checkout: Path = CHECKOUT) -> tuple[str, bool]:
    """The commit of the code and whether the code differs from it, by new files too; `unknown` outside of git."""
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
        return commit, bool(changed or _git(checkout, "ls-files", "--others", "--exclude-standard", "--", *CODE))
    except (OSError, subprocess.SubprocessError):
        return "unknown", False


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
