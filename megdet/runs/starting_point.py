"""The run that a training begins from, `model.init_from`: where it is, and what its checkpoint is known by."""

from __future__ import annotations

import glob
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from megdet.errors import UserError
from megdet.model.settings import ModelSettings
from megdet.runs.files import short_sha256
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import PLAN


def resolve_start(model: ModelSettings, runs_dir: Path) -> ModelSettings:
    """The same with `init_from` as an absolute path and with `init_sha256`; unchanged where it is null.

    Raises UserError where there is no such run, it has not trained, or its checkpoint is not the one asked for.
    """
    if model.init_from is None:
        return model
    folder = _named(model.init_from, runs_dir)
    if not folder.checkpoint.exists():
        raise UserError(f"model.init_from={model.init_from} has not trained yet: {folder.checkpoint} is missing")
    found = _digest(folder.checkpoint, folder.checkpoint.stat().st_mtime_ns)
    if model.init_sha256 not in (None, found):
        raise UserError(
            f"model.init_sha256={model.init_sha256}, but {folder.checkpoint} is {found}: the run has gone on, or it is "
            "another; leave model.init_sha256 out to begin from what is there now"
        )
    return replace(model, init_from=str(folder.path), init_sha256=found)


def _named(text: str, runs_dir: Path) -> RunFolder:
    """The run of a folder, of a name in `runs_dir`, or of the beginning of one."""
    named = Path(text).expanduser()
    for path in (named, runs_dir / named):
        if RunFolder(path).exists:
            return RunFolder(path.absolute())
    begin = sorted(path.parent for path in runs_dir.glob(f"{glob.escape(text)}*/{PLAN}"))
    if len(begin) == 1:
        return RunFolder(begin[0].absolute())
    if begin:
        raise UserError(f"model.init_from={text}: {', '.join(path.name for path in begin)} begin so; name one of them")
    raise UserError(
        f"model.init_from={text} is no run folder, nor the beginning of a run's name in {runs_dir}; name a run "
        "that has trained"
    )


@lru_cache(maxsize=64)  # every point of a sweep asks
def _digest(path: Path, changed_ns: int) -> str:
    return short_sha256(path)
