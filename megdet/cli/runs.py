"""The runs that a command line names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from megdet.errors import UserError
from megdet.runs.folder import RunFolder, run_folders
from megdet.runs.run_files import PLAN
from megdet.settings.paths import expanded, fault_of_path
from megdet.settings.rules import shown

DEFAULT = "runs"


def select_runs(words: Sequence[str]) -> list[RunFolder]:
    """The run folders that `words` name, each once; all of ./runs where there are none. Raises UserError."""
    return list(dict.fromkeys(folder for word in words or [DEFAULT] for folder in _named(word)))


def select_run(word: str) -> RunFolder:
    """The one run folder that `word` names. Raises UserError where it names several."""
    folders = select_runs([word])
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise UserError(f"{word}: one run is needed, and these are meant: {names}")
    return folders[0]


def _named(word: str) -> list[RunFolder]:
    if instead := fault_of_path(word):
        raise UserError(f"{shown(word)}: use {instead}")
    path = expanded(word)
    if RunFolder(path).exists:
        return [RunFolder(path)]
    if path.is_dir() or word == DEFAULT:
        return run_folders(path)
    runs = path.parent if len(path.parts) > 1 else Path(DEFAULT)
    exact = RunFolder(runs / path.name)
    if exact.exists:
        return [exact]
    if any(sign in path.name for sign in "*?["):
        found = [place.parent for place in runs.glob(f"{path.name}/{PLAN}")]
    else:
        found = [place.parent for place in runs.glob(f"*/{PLAN}") if place.parent.name.startswith(path.name)]
    if not found:
        there = sorted(place.parent.name for place in runs.glob(f"*/{PLAN}"))
        near = difflib.get_close_matches(path.name, there, n=3, cutoff=0.5)
        meant = f" Did you mean {' or '.join(near)}?" if near else f" There are {len(there)} runs in {runs}."
        raise UserError(f"{word} does not exist and no run in {runs} is called so.{meant}")
    return [RunFolder(folder) for folder in sorted(found)]
