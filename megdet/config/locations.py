"""Where megdet's own files are, and the name of its command."""

from __future__ import annotations

from pathlib import Path

import megdet

PACKAGE = Path(megdet.__file__).resolve().parent


def _shipped(name: str) -> Path:
    """In a wheel the folder is inside the package, in a checkout beside it."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


CONF = _shipped("conf")
"""Hydra's YAML files: what a user may choose."""
SWEEPS = _shipped("sweeps")
"""The rows of tables and figures."""
CHECKOUT = None if CONF.is_relative_to(PACKAGE) else PACKAGE.parent
"""The root of the checkout that this code runs from; None for an installed wheel."""
LAUNCH = "python launch.py" if CHECKOUT else "megdet launch"
"""How messages name the command that starts runs."""


def own_conf() -> Path | None:
    """The folder `conf` of the current directory, where it is a user's own: conf/cluster/mine.yaml is cluster=mine."""
    folder = Path("conf").resolve()
    return folder if folder.is_dir() and folder != CONF.resolve() else None
