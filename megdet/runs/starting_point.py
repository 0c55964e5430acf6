"""The run that a training begins from, `model.init_from`: where it is, and what its checkpoint is known by."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model.settings import ModelSettings
from megdet.runs.files import short_sha256
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import PLAN
from megdet.settings.rules import shown


def resolve_start(model: ModelSettings, runs_dir: Path) -> ModelSettings:
    """The same with `init_from` as an absolute path and with `init_sha256`; unchanged where it is null.

    Raises UserError where there is no such run, it has not trained, or its checkpoint is not the one asked for.
    """
    if model.init_from is None:
        return model
    folder = _named(model.init_from, runs_dir)
    if not folder.checkpoint.exists():
        state = folder.state()
        why = "has not trained yet" if state is None or not state.status.is_result else "has no weights, as published"
        raise UserError(
            f"model.init_from={model.init_from} {why}: {folder.checkpoint} is missing; name a run folder that has one"
        )
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
    # A path is no name; and no pattern may begin at the root.
    pattern = None if named.is_absolute() else f"{glob.escape(text)}*/{PLAN}"
    begin = sorted(path.parent for path in runs_dir.glob(pattern)) if pattern else []
    if len(begin) == 1:
        return RunFolder(begin[0].absolute())
    if begin:
        raise UserError(f"model.init_from={text}: {', '.join(path.name for path in begin)} begin so; name one of them")
    raise UserError(
        f"model.init_from={text} is no run folder, nor the beginning of a run's name in {runs_dir}; name a run "
        "that has trained"
    )


def check_start_fits(config: Config) -> None:
    """Raises UserError where the run that `config` begins from can be seen to have another backbone or pyramid, or
    where its files are damaged; the rest shows when its weights are read. Its plan may be of an earlier version, for
    its weights alone are taken.
    """
    if config.model.init_from is None:
        return
    folder = RunFolder(Path(config.model.init_from))
    try:
        theirs = folder.read_plan()["config"]
    except UserError as error:
        raise UserError(f"model.init_from={folder.path}: {error}") from None
    if not is_zipfile(folder.checkpoint):
        raise UserError(
            f"model.init_from={folder.path}: {folder.checkpoint} is damaged; put a good copy in its place, or begin "
            "from another run"
        )
    asked = _structure(asdict(config))
    for what, found in _structure(theirs).items():
        if found != asked[what]:
            raise UserError(
                f"model.init_from={folder.path} has {what}: {shown(found)}, and here it is {shown(asked[what])}; ask "
                "for the same backbone and pyramid, or leave model.init_from out"
            )


def _structure(config: Mapping[str, Any]) -> dict[str, object]:
    """What decides whether backbone and pyramid fit, of a plan's config; nothing of one that an earlier version wrote
    in another way.
    """
    try:
        model = config["model"]
        return {
            "model.backbone.name": model["backbone"]["name"],
            "model.fpn.channels": model["fpn"]["channels"],
            "BN in the pyramid (bn_size above 0)": config["bn_size"] > 0 and "fpn" in model["bn_in"],
        }
    except (KeyError, TypeError):
        return {}


@lru_cache(maxsize=64)  # every point of a sweep asks
def _digest(path: Path, changed_ns: int) -> str:
    return short_sha256(path)
