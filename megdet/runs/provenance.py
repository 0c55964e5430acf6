"""The code, data, weights and devices behind a run, over all its attempts, from its journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from megdet.errors import UserError
from megdet.runs.folder import RunFolder

ARROW = " → "
"""Between what was and what came after it."""


@dataclass(frozen=True)
class Provenance:
    """Code, data, weights and devices of the attempts whose work is in the result."""

    commits: tuple[str, ...]
    """Of the code that trained it, one after the other."""
    dirty: bool
    """Whether the code differed from its commit, in any attempt."""
    code_sha256: str
    """12 digits of the hash over its source files (`megdet.planning.code_version`), `a → b` where they changed; empty
    where not recorded."""
    data_sha256: str
    """The data's fingerprint (`megdet.data.fingerprint`), `a → b` where it changed; empty where not recorded."""
    weights_sha256: str
    """The same of the file with the weights that it began from; empty where there is none, or not recorded."""
    device: str
    """The GPU's name, or the processor's, `a → b` where it moved to another; empty where not recorded."""


def provenance_of(journal: Iterable[Mapping[str, Any]], plan: Mapping[str, Any]) -> Provenance:
    """From a journal's lines on epochs and events; from the plan what older journals do not say."""
    lines = list(journal)
    attempts = _attempts(lines) or [{}]
    recorded = any("commit" in attempt for attempt in attempts)
    data = _changes(attempt.get("data_sha256", "") for attempt in attempts)
    weights = [line["weights_sha256"] for line in lines if "weights_sha256" in line]
    return Provenance(
        _changes(attempt.get("commit", "unknown") for attempt in attempts) if recorded else (plan["commit"],),
        any(attempt.get("dirty", plan["dirty"]) for attempt in attempts),
        ARROW.join(_changes(attempt["code_sha256"] for attempt in attempts if "code_sha256" in attempt)),
        "" if "" in data else ARROW.join(data),
        weights[-1] if weights else "",
        ARROW.join(_changes(attempt["device"] for attempt in attempts if "device" in attempt)),
    )


def data_recorded(folder: RunFolder) -> str:
    """The `data_sha256` that a run's first steps were made with; empty where its journal does not say."""
    recorded = ""
    try:
        with folder.journal.open(encoding="utf-8", errors="replace") as lines:
            for line in map(json.loads, lines):
                if line["kind"] != "event":
                    break
                recorded = line.get("data_sha256", recorded)
    except (FileNotFoundError, ValueError, KeyError):
        pass
    return recorded


def check_same_data(folder: RunFolder, fingerprint: str) -> None:
    """Raises UserError where the run of a folder has made steps with other data than that of this fingerprint."""
    recorded = data_recorded(folder)
    if folder.has_begun and recorded not in ("", fingerprint):
        raise UserError(
            f"{folder.path} was trained on other data of this name until now: its journal says data_sha256 {recorded}, "
            f"and the data there is now has {fingerprint}. Put the first one back; or tell the two apart with another "
            "data.name or runs_dir; or begin anew with sweep.on_existing=force"
        )


def _attempts(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines on the starts of the attempts, oldest first.

    An attempt that came to neither a checkpoint nor an evaluation is followed at once by the next, at the same step.
    """
    kept: list[Mapping[str, Any]] = []
    for line in lines:
        if line["kind"] == "epoch" or line.get("event") in ("started", "resumed"):
            if kept and kept[-1]["kind"] == line["kind"] == "event" and kept[-1]["step"] == line["step"]:
                kept.pop()
            kept.append(line)
    return [line for line in kept if line["kind"] == "event"]


def _changes(values: Iterable[str]) -> tuple[str, ...]:
    """The values in order, without repeats of the one before."""
    return tuple(value for value, _ in groupby(values))
