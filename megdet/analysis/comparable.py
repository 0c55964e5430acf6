"""Which runs may stand in one table: those that differ in nothing but what the table varies."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from megdet.analysis.paper_settings import paper_settings
from megdet.analysis.runs import RunRecord

VARIED = ("batch", "bn_size", "lr.scale", "schedule")
"""What the rows of Tables 2 and 3 vary."""
NAMED = 4
"""Settings that a heading names; more are counted."""


@dataclass(frozen=True)
class Group:
    """Comparable runs."""

    title: str
    """What they have in common, as far as it tells them from the other groups."""
    runs: tuple[RunRecord, ...]

    @property
    def is_like_the_paper(self) -> bool:
        return not _unlike_the_paper(self.runs)

    @property
    def heading(self) -> str:
        """Which runs a table shows, and what to think of their differences from the paper."""
        unlike = _unlike_the_paper(self.runs)
        if not unlike:
            return self.title
        if _is_of_other_data_or_model(unlike):
            return f"{self.title}; not the paper's data or model, so the differences say little"
        more = f" and {len(unlike) - NAMED} more" if len(unlike) > NAMED else ""
        return f"{self.title}; not the paper's {', '.join(unlike[:NAMED])}{more}: the differences may come from that"


def comparable_groups(runs: Sequence[RunRecord]) -> list[Group]:
    """The runs in groups that agree in every setting except VARIED, and in the files that they learned from.

    First is what is like the paper, last what is of other data or of another model.
    Within a group one schedule name means one schedule: runs of a rarer variant (`normal` with other epochs)
    are a group of their own.
    """
    by_settings: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_settings[json.dumps(_constant(run.settings), sort_keys=True)].append(run)
    parts = [
        part
        for same in by_settings.values()
        for of_data in _by_content(same, lambda run: run.data_sha256)
        for of_weights in _by_content(of_data, lambda run: run.weights_sha256)
        for part in _by_schedule(of_weights)
    ]
    parts.sort(key=lambda part: (_distance(part), -len(part), part[0].run_id))
    return [Group(_title(part, parts), tuple(part)) for part in parts]


def contents_of(runs: Sequence[RunRecord]) -> dict[str, str]:
    """The SHA-256 of the files that comparable runs learned from, as far as recorded: of `annotations`, `weights`."""
    recorded = {
        "annotations": max(run.data_sha256 for run in runs),  # the others have the same, or none
        "weights": max(run.weights_sha256 for run in runs),
    }
    return {name: sha256 for name, sha256 in recorded.items() if sha256}


def _unlike_the_paper(runs: Sequence[RunRecord]) -> list[str]:
    """The settings, besides VARIED, that comparable runs do not share with the paper's."""
    found: set[str] = set()
    for run in {run.schedule: run for run in runs}.values():
        paper = paper_settings(run.schedule)
        own = run.settings if "schedule.epochs" in paper else _constant(run.settings)
        found |= {key for key in paper.keys() | own.keys() if key not in VARIED and paper.get(key) != own.get(key)}
    return sorted(found)


def _is_of_other_data_or_model(unlike: Sequence[str]) -> bool:
    return "data" in unlike or "model" in unlike


def _distance(runs: Sequence[RunRecord]) -> int:
    unlike = _unlike_the_paper(runs)
    return 2 if _is_of_other_data_or_model(unlike) else 1 if unlike else 0


def _constant(settings: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in settings.items() if k not in VARIED and not k.startswith("schedule.")}


def _by_content(runs: Sequence[RunRecord], sha256: Callable[[RunRecord], str]) -> list[list[RunRecord]]:
    """Runs of unknown content stay with the others while these agree; otherwise they are a part of their own."""
    if len({sha256(run) for run in runs} - {""}) < 2:
        return [list(runs)]
    parts: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        parts[sha256(run)].append(run)
    return list(parts.values())


def _schedule(run: RunRecord) -> dict[str, str]:
    return {k.removeprefix("schedule."): v for k, v in run.settings.items() if k.startswith("schedule.")}


def _by_schedule(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    variants = {run.run_id: json.dumps(_schedule(run), sort_keys=True) for run in runs}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        counts[run.schedule][variants[run.run_id]] += 1
    usual = {name: min(found, key=lambda v: (-found[v], v)) for name, found in counts.items()}
    parts: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        variant = variants[run.run_id]
        parts["" if usual[run.schedule] == variant else variant].append(run)
    return list(parts.values())


def _title(part: Sequence[RunRecord], all_parts: Sequence[Sequence[RunRecord]]) -> str:
    first = part[0]
    own = _constant(first.settings)
    same_names = [other for other in all_parts if (other[0].data, other[0].model) == (first.data, first.model)]
    shown = [f"data {first.data}", f"model {first.model}"]
    shown += _differing(own, [_constant(other[0].settings) for other in same_names])
    same_settings = [contents_of(other) for other in same_names if _constant(other[0].settings) == own]
    for name in ("annotations", "weights"):
        if len({contents[name] for contents in same_settings if name in contents}) > 1:
            shown.append(f"{name} {contents_of(part).get(name, 'not recorded')}")
    schedules = {run.schedule: run for run in part}
    for name in sorted(schedules, key=lambda name: schedules[name].schedule_epochs):
        same_name = [_schedule(run) for other in same_names for run in other if run.schedule == name]
        shown.append(_schedule_text(schedules[name], same_name))
    return "; ".join(shown)


def _schedule_text(run: RunRecord, others: Sequence[Mapping[str, str]]) -> str:
    """`normal schedule 11 epochs (drops at 8, 10)`, with all else that tells it from `others` of its name."""
    drops = ", ".join(str(epoch) for epoch in run.milestones)
    differing = [text for text in _differing(_schedule(run), others) if text.split()[0] not in ("epochs", "milestones")]
    return (
        f"{run.schedule} schedule {run.schedule_epochs} epochs"
        + (f" (drops at {drops})" if drops else "")
        + (f" with {', '.join(differing)}" if differing else "")
    )


def _differing(own: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> list[str]:
    """What sets `own` apart from any of `others`, itself among them: `precision bf16`."""
    keys = sorted(set().union(*others))
    return [f"{key} {own.get(key, 'not set')}" for key in keys if len({other.get(key) for other in others}) > 1]
