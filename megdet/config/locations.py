"""Where the files that come with megdet lie: in a checkout beside the package, in an installed megdet inside it."""

from __future__ import annotations

from pathlib import Path

import megdet

PACKAGE = Path(megdet.__file__).resolve().parent
CHECKOUT = PACKAGE.parent
"""The root of a checkout; of an installed megdet the folder that it is installed in."""


def _shipped(name: str) -> Path:
    beside = CHECKOUT / name
    return beside if (CHECKOUT / "pyproject.toml").exists() and beside.is_dir() else PACKAGE / name


CONF = _shipped("conf")
"""Hydra's YAML files: what a user may choose."""
SWEEPS = _shipped("sweeps")
"""The rows of tables and figures."""
