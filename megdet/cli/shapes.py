"""`megdet shapes`: every layout of an experiment, with what it costs and when it would end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from megdet.errors import UserError
from megdet.planning.plan import Plan
from megdet.planning.shapes import Shapes, asked_of, shapes_of
from megdet.runs.as_json import print_json
from megdet.runs.prediction import NOT_KNOWN, SOURCES, Predictors

if TYPE_CHECKING:
    from megdet.launchers.interface import Launcher

SUMMARY = "every layout of an experiment: hours, GPU-hours, memory, when it would start and end"
HELP = """\
List every layout that one experiment can have (GPUs x images_per_gpu x accumulation, BN group and splits, sublinear
memory), the one that ends first at the top. What is learned is the same in all of them. Overrides are those of
`megdet launch`; what they fix (gpus=8, sublinear=false) is kept to.

  megdet shapes batch=64 bn_size=16 cluster=paper
  megdet shapes batch=64 bn_size=16 hydra/launcher=submitit_slurm    asks Slurm when each would start
  megdet shapes batch=64 bn_size=16 --all --json

Hours are predicted as `megdet launch` does it: from finished runs, else from Table 3. `*`: what a launch takes by
itself. Nothing is started, submitted or written.
"""
SHOWN = 15
WIDTH = 200
"""Of a table that goes into a file or a pipe."""
CLOCK = "%m-%d %H:%M"


@dataclass(frozen=True)
class Row:
    """One layout; what is not known is None, and `why` says why."""

    plan: Plan
    is_chosen: bool
    hours: float | None
    gpu_hours: float | None
    source: str | None
    start: datetime | None
    jobs: int | None
    why: tuple[str, ...]

    @property
    def end(self) -> datetime | None:
        """If nothing makes it wait between its jobs."""
        return self.start + timedelta(hours=self.hours) if self.start and self.hours is not None else None

    @property
    def order(self) -> tuple[float, float, int]:
        """Earliest end first; then, where no start is known, fewest hours; then most GPUs."""
        end, hours = self.end, self.hours
        return (
            end.timestamp() if end else float("inf"),
            float("inf") if hours is None else hours,
            -self.plan.layout.gpus,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="such as batch=64 bn_size=16 cluster=mine")
    parser.add_argument("--all", action="store_true", help=f"print all layouts, not the first {SHOWN}")
    parser.add_argument("--json", action="store_true", help="print JSON, always all (docs/programs.md has its keys)")


def run(parsed: argparse.Namespace) -> int:
    """Print the table; always 0. Raises UserError where the experiment has no layout."""
    # Imported here: --help should not wait for Hydra.
    from megdet.config.compose import compose_with_launcher
    from megdet.config.experiments import Asked
    from megdet.launchers.named import launcher_named
    from megdet.sweep.points import plan_points

    config, launcher_name = compose_with_launcher(parsed.overrides)
    if config.sweep.rows is not None:
        raise UserError(f"sweep.rows={config.sweep.rows} asks for a table; name one experiment, such as batch=64")
    config.sweep.dry_run = True  # it may plan for a cluster that is not here
    launcher = launcher_named(launcher_name, config)
    [point] = plan_points([Asked((), config)], to_run_here=False, launcher=launcher)
    if point.plan is None:
        raise UserError(point.why)
    shapes = shapes_of(point.plan.config, commit=point.plan.commit, dirty=point.plan.dirty)
    rows = _rows(shapes, launcher)
    if parsed.json:
        print_json({"run": shapes.chosen.run_id, "left_out": shapes.too_large, "layouts": [_as_json(r) for r in rows]})
        return 0
    _print(shapes, rows if parsed.all else rows[:SHOWN])
    if len(rows) > SHOWN and not parsed.all:
        print(f"{len(rows) - SHOWN} more with --all")
    return 0


def _rows(shapes: Shapes, launcher: Launcher) -> list[Row]:
    predictors = Predictors()
    return sorted((_row(plan, shapes, launcher, predictors) for plan in shapes.plans), key=lambda row: row.order)


def _row(plan: Plan, shapes: Shapes, launcher: Launcher, predictors: Predictors) -> Row:
    predicted = predictors.predict(plan)
    why = [] if predicted else [f"no hours: {NOT_KNOWN}"]
    if plan.memory_gb is None:
        why.append("no memory: it is not known for parts of this model")
    start, jobs = None, None
    try:
        expected = launcher.expected_start(plan)
    except UserError as error:
        why.append(f"no start: {str(error).partition(chr(10))[0]}")
    else:
        start = expected.at
        if start is None:
            why.append(f"no start: {expected.why_unknown}")
        if predicted and expected.longest_job_min:
            jobs = max(1, -int(-60 * predicted.hours // expected.longest_job_min))
    return Row(
        plan,
        is_chosen=plan.layout == shapes.chosen.layout,
        hours=predicted.hours if predicted else None,
        gpu_hours=predicted.gpu_hours if predicted else None,
        source=predicted.source if predicted else None,
        start=start,
        jobs=jobs,
        why=tuple(why),
    )


def _print(shapes: Shapes, rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    config = shapes.chosen.config
    print(f"batch {config.batch}, bn_size {config.bn_size}: {shapes.chosen.run_id}, the same result on each layout")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    headings = ("", "gpus", "nodes", "images_\nper_gpu", "accumu-\nlation", "bn_group", "bn_splits", "sub-\nlinear")
    for heading in (*headings, "GB a\nGPU", "hours", "GPU-\nhours", "start", "end", "jobs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console = Console(highlight=False, markup=False)
    (console if console.is_terminal else Console(width=WIDTH, highlight=False, markup=False)).print(table)
    best = rows[0]
    print(f"first in the table: {asked_of(best.plan)}")
    if sources := sorted({row.source for row in rows if row.source}):
        names = [SOURCES.get(source, source) for source in sources]
        print(f"hours are predicted from {' and '.join(names)}, memory from the shapes of the layers")
    if any(row.jobs and row.jobs > 1 for row in rows):
        print("a run of several jobs waits for each of them: its end is the earliest that can be")
    if shapes.too_large:
        print(
            f"{shapes.too_large} more are left out: by prediction they do not fit "
            f"cluster.gpu_memory_gb={config.cluster.gpu_memory_gb:g}"
        )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in row.why:
            reasons.setdefault(reason, []).append(str(row.plan.layout.gpus))
    for reason, gpus in reasons.items():
        where = "" if len(gpus) == len(rows) else f" (gpus={','.join(dict.fromkeys(gpus))})"
        print(f"{reason}{where}")
    sys.stdout.flush()


def _cells(row: Row) -> tuple[str, ...]:
    layout, memory = row.plan.layout, row.plan.memory_gb
    bn = (layout.bn_group, layout.bn_splits) if row.plan.config.bn_size else ("frozen", "")
    numbers = (layout.gpus, layout.nodes, layout.images_per_gpu, layout.accumulation, *bn)
    return (
        "*" if row.is_chosen else "",
        *map(str, numbers),
        layout.sublinear_text,
        "?" if memory is None else f"{memory:.2g}" if memory < 10 else f"{memory:.0f}",
        "?" if row.hours is None else f"{row.hours:,.3g}",
        "?" if row.gpu_hours is None else f"{row.gpu_hours:,.4g}",
        row.start.strftime(CLOCK) if row.start else "?",
        row.end.strftime(CLOCK) if row.end else "?",
        "" if row.jobs is None else str(row.jobs),
    )


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "asked": asked_of(row.plan),
        "is_chosen": row.is_chosen,
        "layout": asdict(row.plan.layout),
        "hours_left": row.hours,
        "gpu_hours_left": row.gpu_hours,
        "predicted_from": row.source,
        "memory_gb_per_gpu": row.plan.memory_gb,
        "start": row.start.isoformat() if row.start else None,
        "end": row.end.isoformat() if row.end else None,
        "jobs": row.jobs,
        "why_unknown": list(row.why),
    }
