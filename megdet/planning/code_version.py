"""The version of the code: its commit, and whether it has uncommitted changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from megdet import __version__
from megdet.config.locations import CHECKOUT

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


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
