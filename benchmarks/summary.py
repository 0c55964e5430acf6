"""What all benchmarks measured that were run here, beside what was aimed for, as a Markdown table.

make benchmarks                     # runs them all, one after the other (an hour on two cores)
python -m benchmarks.summary        # only the table
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT


@dataclass(frozen=True)
class Goal:
    """One number: where it stands in a report, what it says, and the bound aimed for, if any."""

    report: str
    keys: tuple[str, ...]
    label: str
    bound: float | None
    at_most: bool = False


def _steps(report: str, model: str, fp32: float, bf16: float) -> list[Goal]:
    return [
        Goal(report, ("ratios", "torchvision/fp32"), f"training step, {model}, fp32: torchvision's time / ours", fp32),
        Goal(report, ("ratios", "torchvision/bf16"), f"training step, {model}, bf16: torchvision's time / ours", bf16),
    ]


GOALS = [
    *_steps("train_step-r50_fpn-800px-1", "r50_fpn at 800 px, 1 image", 1.5, 4.0),
    *_steps("train_step-r18_fpn-256px-4", "r18_fpn at 256 px, 4 images", 2.0, 4.5),
    *_steps("train_step-r18_fpn-128px-4", "r18_fpn at 128 px, 4 images", 2.0, 4.5),
    Goal(
        "train_step-r50_fpn-800px-1",
        ("ratios", "sublinear_memory"),
        "sublinear memory, r50_fpn: peak with / without",
        1.0,
        True,
    ),
    Goal(
        "train_step-r50_fpn-800px-1",
        ("ratios", "sublinear_time"),
        "sublinear memory, r50_fpn: time with / without",
        1.15,
        True,
    ),
    *(
        Goal(
            f"cgbn-{ranks}ranks-{form}",
            ("ratios", f"cgbn/{peer}"),
            f"CGBN / {name}, {ranks} gloo ranks, {form}",
            bound,
            at_most=True,
        )
        for ranks in (2, 4)
        for form in ("contiguous", "channels_last")
        # Against a norm that exchanges nothing, the host's loopback and cores decide: no bound.
        for peer, name, bound in (("batch_norm", "nn.BatchNorm2d", None), ("naive", "naive all-reduce form", 1.0))
    ),
    Goal(
        "synced_step-2ranks-r18_fpn-256px-2",
        ("ratios", "cgbn/frozen"),
        "training step over 2 gloo ranks, r18_fpn: CGBN / frozen BN",
        1.25,
        True,
    ),
    Goal("small_model", ("images_per_s", "64px-frozen"), "`tiny` at 64 px, frozen BN, one core: images/s", 448),
    Goal("coco_eval", ("ratio",), "COCO evaluation, 5,000 images: pycocotools' time / ours", 60),
    Goal(
        "coco_eval", ("largest_difference_percent",), "COCO evaluation: largest difference of the 12 numbers", 0.0, True
    ),
    Goal("start_up", ("ratios", "help"), "`launch.py --help` / a bare Hydra app's", 1.5, True),
]


def main() -> None:
    reports: dict[str, dict[str, Any]] = {
        path.stem: json.loads(path.read_text()) for path in Path(ROOT / "results" / "benchmarks").glob("*.json")
    }
    print("| what | measured | aimed for | |")
    print("|---|---:|---:|---|")
    for goal in GOALS:
        if goal.report not in reports:
            print(f"| {goal.label} | not run | {_bound(goal)} | |")
            continue
        value: Any = reports[goal.report]["numbers"]
        for key in goal.keys:
            value = value[key]
        print(f"| {goal.label} | {value:.3g} | {_bound(goal)} | {_reached(goal, value)} |")
    made = {(r["commit"][:12], r["dirty"], r["hardware"]["cpu"], r["hardware"]["cores"]) for r in reports.values()}
    print()
    for commit, dirty, cpu, cores in sorted(made):
        print(f"Commit {commit}{' with changes' if dirty else ''}, {cpu}, {cores} cores.")


def _reached(goal: Goal, value: float) -> str:
    if goal.bound is None:
        return ""
    return "reached" if (value <= goal.bound if goal.at_most else value >= goal.bound) else "not reached"


def _bound(goal: Goal) -> str:
    return "" if goal.bound is None else f"{'≤' if goal.at_most else '≥'} {goal.bound:g}"


if __name__ == "__main__":
    main()
