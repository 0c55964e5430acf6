"""Files of conf/ that a user wrote: what YAML makes of them that nobody means, and what is no text at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.config.locations import CONF
from megdet.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
"""12:00:00, which YAML 1.1 reads as the number 43200."""
_LINE = re.compile(rf"\s*(?P<key>[\w.]+):\s+(?P<value>{BASE_60.pattern})\s*(?:#.*)?")


def refuse_base_60(composed: DictConfig) -> None:
    """Raises UserError where a file that was chosen for a composition (with Hydra's part) has such a number."""
    for path in _chosen(composed):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if found := _LINE.fullmatch(line):
                raise UserError(
                    f"{path}, line {number}: {found['key']}: {found['value']} is a number of base 60 to YAML; write "
                    "what is meant as one number, in the unit of the setting, or in quotes where it is a text"
                )


def no_text(folder: Path) -> str:
    """Which YAML files of a folder are not UTF-8."""
    return ", ".join(str(path) for path in sorted(folder.rglob("*.yaml")) if not _is_text(path))


def _chosen(composed: DictConfig) -> Iterator[Path]:
    runtime = composed.hydra.runtime
    sources = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    for group, options in runtime.choices.items():
        for option in [options] if isinstance(options, str) else options or []:
            for source in sources:
                path = source / group / f"{option}.yaml"
                if path.is_file() and not path.is_relative_to(CONF):
                    yield path


def _is_text(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True
