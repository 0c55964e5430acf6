"""Which runs may stand in one table: those that differ in nothing but what the table varies."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.runs import RunRecord

VARIED = ("batch", "bn_size", "lr.scale", "schedule")
"""What the rows of Tables 2 and 3 vary."""
PAPER = ("coco2017", "r50_fpn")
"""The paper's data and model."""


@dataclass(frozen=True)
class Group:
    """Comparable runs."""

    title: str
    """What they have in common, as far as it tells them from the other groups."""
    runs: tuple[RunRecord, ...]

    @property
    def is_like_the_paper(self) -> bool:
        return (self.runs[0].data, self.runs[0].model) == PAPER

    @property
    def heading(self) -> str:
        """Which runs a table shows, and what to think of their differences from the paper."""
        apart = "" if self.is_like_the_paper else "; not the paper's data or model, so the differences say little"
        return self.title + apart


def comparable_groups(runs: Sequence[RunRecord]) -> list[Group]:
    """The runs in groups that agree in every setting except VARIED; the paper's data and model first.

    Within a group one schedule name means one schedule: runs of a rarer variant (`normal` with other epochs)
    are a group of their own.
    """
    by_settings: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_settings[json.dumps(_constant(run.settings), sort_keys=True)].append(run)
    split = [part for same in by_settings.values() for part in _by_schedule(same)]
    split.sort(key=lambda part: ((part[0].data, part[0].model) != PAPER, -len(part), part[0].run_id))
    return [Group(_title(part, split), tuple(part)) for part in split]


def _constant(settings: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in settings.items() if k not in VARIED and not k.startswith("schedule.")}


def _schedule(run: RunRecord) -> str:
    return json.dumps({k: v for k, v in run.settings.items() if k.startswith("schedule.")}, sort_keys=True)


def _by_schedule(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        counts[run.schedule][_schedule(run)] += 1
    usual = {name: min(variants, key=lambda v: (-variants[v], v)) for name, variants in counts.items()}
    parts: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        variant = _schedule(run)
        parts["" if usual[run.schedule] == variant else variant].append(run)
    return list(parts.values())


def _title(part: Sequence[RunRecord], all_parts: Sequence[Sequence[RunRecord]]) -> str:
    first = part[0]
    same_names = [other[0] for other in all_parts if (other[0].data, other[0].model) == (first.data, first.model)]
    settings = [_constant(run.settings) for run in same_names]
    own = _constant(first.settings)
    differing = sorted(key for key in set().union(*settings) if len({other.get(key) for other in settings}) > 1)
    shown = [f"data {first.data}", f"model {first.model}"]
    shown += [f"{key} {own.get(key, 'not set')}" for key in differing]
    schedules = {run.schedule: run for run in part}
    for name in sorted(schedules, key=lambda name: int(schedules[name].settings["schedule.epochs"])):
        drops = ", ".join(str(epoch) for epoch in schedules[name].milestones)
        epochs = schedules[name].settings["schedule.epochs"]
        shown.append(f"{name} schedule {epochs} epochs" + (f" (drops at {drops})" if drops else ""))
    return "; ".join(shown)
