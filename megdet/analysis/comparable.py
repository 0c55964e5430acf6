"""Which runs may share a table: those that differ only in what the table varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from megdet.analysis.paper_settings import paper_settings
from megdet.analysis.rows import KEY
from megdet.analysis.run_frames import RunFrames, settings_of
from megdet.analysis.setting_values import NOT_SET, numbers_in, setting_text
from megdet.settings.counted import counted, listed

CONTENTS = {"annotations": "data_sha256", "masks": "data.masks_fingerprint", "weights": "weights_sha256"}
"""What runs learn from, and the columns that tell its content; runs with boxes alone have no masks."""
NAMED = 4
"""Settings that a heading names; more are counted."""


@dataclass(frozen=True)
class Group:
    """Comparable runs."""

    title: str
    """What they have in common, as far as it tells them from the other groups."""
    frames: RunFrames
    varied: tuple[str, ...] = KEY
    """The settings in which they may differ, with those below them (`schedule.epochs`, where `schedule` varies)."""

    @property
    def runs(self) -> pd.DataFrame:
        return self.frames.runs

    @property
    def epochs(self) -> pd.DataFrame:
        return self.frames.epochs

    @property
    def steps(self) -> pd.DataFrame:
        return self.frames.steps

    @property
    def is_like_the_paper(self) -> bool:
        return not self._unlike

    @property
    def is_foreign(self) -> bool:
        """Whether they have other data or another model than the paper's."""
        return _is_of_other_data_or_model(self._unlike)

    @property
    def heading(self) -> str:
        """Which runs a table shows, and whether they can be compared with the paper's."""
        unlike = self._unlike
        if not unlike:
            return self.title
        if _is_of_other_data_or_model(unlike):
            return f"{self.title}; not the paper's data or model, so the differences say little"
        return f"{self.title}; not the paper's {listed(unlike, NAMED)}: the differences may come from that"

    @cached_property
    def names(self) -> list[str]:
        """The data sets and models of the runs: `data coco2017`."""
        return [f"{key} {', '.join(sorted(self.runs[key].astype(str).unique()))}" for key in ("data", "model")]

    @cached_property
    def constant(self) -> dict[str, str]:
        """The settings that all runs share, as text."""
        return settings_of(self.runs.iloc[0], _constant(self.frames.settings, self.varied))

    @cached_property
    def contents(self) -> dict[str, str]:
        """The SHA-256 of the files that they learned from, as far as recorded: of `annotations`, `weights`."""
        # The others agree, or have none.
        recorded = {name: max(_contents_in(self.runs, column)) for name, column in CONTENTS.items()}
        return {name: sha256 for name, sha256 in recorded.items() if sha256}

    @cached_property
    def schedules(self) -> dict[str, dict[str, str]]:
        """By the name of each schedule, shortest first, what it consists of: `epochs`, `milestones`, ..."""
        of_each = self.runs.drop_duplicates("schedule").sort_values(["schedule.epochs", "schedule"])
        below = [key for key in self.frames.settings if key.startswith("schedule.") and key not in self.varied]
        return {
            run["schedule"]: {key.removeprefix("schedule."): text for key, text in settings_of(run, below).items()}
            for _, run in of_each.iterrows()
        }

    @cached_property
    def _unlike(self) -> list[str]:
        """The settings, besides those that vary, that they do not share with the paper's runs."""
        found: set[str] = set()
        for name, schedule in self.schedules.items():
            own = self.constant | {f"schedule.{key}": text for key, text in schedule.items()}
            paper = paper_settings(name)
            if "schedule.epochs" not in paper:  # the paper has no schedule of that name
                schedule, own = {}, {key: text for key, text in own.items() if not key.startswith("schedule.")}
            keys = [*_constant(paper.keys() | own.keys(), self.varied), *(f"schedule.{key}" for key in schedule)]
            found |= {key for key in keys if key not in self.varied and paper.get(key) != own.get(key)}
        return sorted(found)


def comparable_groups(frames: RunFrames, varied: Sequence[str] = KEY) -> list[Group]:
    """The runs in groups that agree in every setting but the `varied`, and in the files that they learned from.

    Groups like the paper's come first, those with other data or another model last. Within a group a name means one
    thing: runs of a rarer variant (the schedule `normal` with other epochs) form a separate group.
    """
    runs = frames.runs
    if runs.empty:
        return []
    part = runs.groupby(_constant(frames.settings, varied), dropna=False, sort=False).ngroup()
    for column in CONTENTS.values():
        part = _split(part, _known_contents(_contents_in(runs, column), part))
    part = _split(part, _rare_variants(frames, varied, part))
    groups = [Group("", found, tuple(varied)) for found in frames.split(part)]
    groups.sort(key=lambda group: (_distance(group), -len(group.runs), group.runs["run_id"].iloc[0]))
    return [replace(group, title=_title(group, groups)) for group in groups]


def _constant(settings: Iterable[str], varied: Sequence[str]) -> list[str]:
    not_compared = (*varied, *CONTENTS.values())
    return [key for key in settings if not any(f"{key}.".startswith(f"{name}.") for name in not_compared)]


def _contents_in(runs: pd.DataFrame, column: str) -> pd.Series:
    """Of each run, empty where it is not known."""
    return runs[column].fillna("") if column in runs else pd.Series("", runs.index)


def _split(part: pd.Series, by: pd.Series) -> pd.Series:
    return part.groupby([part, by], sort=False).ngroup()


def _known_contents(sha256: pd.Series, part: pd.Series) -> pd.Series:
    """What splits the parts: runs of unknown content stay with the others while these agree, else they are apart."""
    several = sha256.where(sha256 != "").groupby(part).transform("nunique") > 1
    return sha256.where(several, "")


def _rare_variants(frames: RunFrames, varied: Sequence[str], part: pd.Series) -> pd.Series:
    """For each run, how its named settings differ from those of most runs with the same names; empty if they do not."""
    rare = pd.Series("", frames.runs.index)
    for name in varied:
        below = [key for key in frames.settings if key.startswith(f"{name}.") and key not in varied]
        if below:
            variant = frames.runs[sorted(below)].map(setting_text).agg("|".join, axis=1)
            usual = variant.groupby([part, frames.runs[name]]).transform(lambda found: found.mode().iloc[0])
            rare += variant.where(variant != usual, "")
    return rare


def _distance(group: Group) -> int:
    unlike = group._unlike
    return 2 if _is_of_other_data_or_model(unlike) else 1 if unlike else 0


def _is_of_other_data_or_model(unlike: Sequence[str]) -> bool:
    return "data" in unlike or "model" in unlike


def _title(group: Group, groups: Sequence[Group]) -> str:
    own = group.constant
    same_names = [other for other in groups if other.names == group.names]
    shown = [*group.names, *_differing(own, [other.constant for other in same_names], but="schedule")]
    same_settings = [other.contents for other in same_names if other.constant == own]
    for name in CONTENTS:
        if len({contents[name] for contents in same_settings if name in contents}) > 1:
            shown.append(f"{name} {group.contents.get(name, 'not recorded')}")
    for name, schedule in group.schedules.items():
        same_name = [other.schedules[name] for other in same_names if name in other.schedules]
        shown.append(_schedule_text(name, schedule, same_name))
    return "; ".join(shown)


def _schedule_text(name: str, schedule: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> str:
    """`normal schedule 11 epochs (drops at 8, 10)`, with all else that tells it from `others` of its name."""
    drops = ", ".join(f"{epoch:g}" for epoch in numbers_in(schedule.get("milestones", "")))
    differing = [text for text in _differing(schedule, others) if text.split()[0] not in ("epochs", "milestones")]
    return (
        f"{name} schedule"
        + (f" {counted(schedule['epochs'], 'epoch')}" if "epochs" in schedule else "")  # text: a plan may be damaged
        + (f" (drops at {drops})" if drops else "")
        + (f" with {', '.join(differing)}" if differing else "")
    )


def _differing(own: Mapping[str, str], others: Sequence[Mapping[str, str]], *, but: str = "") -> list[str]:
    """How `own` differs from any of `others` (which include it): `precision bf16`."""
    # That a built-in part has no arguments of somebody's own says nothing beside its name.
    keys = [
        key
        for key in sorted(set().union(*others))
        if key.partition(".")[0] != but and (".custom." not in key or key in own)
    ]
    return [f"{key} {own.get(key, NOT_SET)}" for key in keys if len({other.get(key) for other in others}) > 1]
