"""What will be run and what will not, for a reader: the table of a sweep, a few lines for a single run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from megdet.plan import Plan

if TYPE_CHECKING:
    from megdet.sweep import Point

MAX_WIDTH = 240
"""Characters that a table may take; a narrower terminal breaks its lines rather than hide numbers."""

_IN_THE_TABLE = {"batch", "bn_size", "gpus", "schedule", "seed", "lr.scale"}
"""What a row shows anyway; a sweep over anything else gets a column of its own."""


def print_table(points: Sequence[Point]) -> None:
    """All points of a sweep, what is wrong with the invalid ones, and how many will run."""
    # Imported here: a single run has no table, and `--help` should not wait for it.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    headings = ["#", "run", "batch", "bn_size", "gpus", "nodes", "images_\nper_gpu", "accumu-\nlation", "bn_group"]
    headings += ["bn_splits", "sub-\nlinear", "lr", "steps", "state"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("run", "state") else "right", no_wrap=True)
    swept_elsewhere = any(_keys(point) - _IN_THE_TABLE for point in points)
    if swept_elsewhere:
        table.add_column("asked")
    for number, point in enumerate(points, start=1):
        asked = [" ".join(point.asked.overrides)] if swept_elsewhere else []
        table.add_row(str(number), *_cells(point), point.state, *asked)
    Console(width=MAX_WIDTH, highlight=False, markup=False).print(table)
    for number, point in enumerate(points, start=1):
        if point.why:
            asked_for = " ".join(point.asked.overrides)
            print(f"{number}. {point.state}: {asked_for}\n   " + point.why.replace("\n", "\n   "))
    counts = Counter(point.state for point in points)
    print(", ".join(f"{count} {state}" for state, count in counts.items()), flush=True)


def describe(point: Point) -> None:
    """A single run in a few lines; what is wrong with it goes to standard error."""
    if point.plan is None:
        print(point.why, file=sys.stderr, flush=True)
        return
    plan, layout, schedule = point.plan, point.plan.layout, point.plan.schedule
    print(f"{plan.run_id}: {point.state}" + (f" ({point.why})" if point.why else ""))
    print(
        f"  batch {plan.config.batch} = gpus {layout.gpus} x images_per_gpu {layout.images_per_gpu} "
        f"x accumulation {layout.accumulation}" + (f", on {layout.nodes} nodes" if layout.nodes > 1 else "")
    )
    print(f"  {_bn(plan)}")
    print(f"  lr {schedule.lr:g}, {schedule.steps} steps ({schedule.epochs} epochs of {schedule.steps_per_epoch})")
    for note in plan.notes:
        print(f"  {note}")
    sys.stdout.flush()


def _cells(point: Point) -> list[str]:
    config, plan = point.asked.config, point.plan
    if plan is None:
        return ["", str(config.batch), str(config.bn_size), *[""] * 9]
    layout, schedule = plan.layout, plan.schedule
    numbers = (config.batch, config.bn_size, layout.gpus, layout.nodes, layout.images_per_gpu, layout.accumulation)
    bn = (layout.bn_group, layout.bn_splits) if config.bn_size else ("frozen", "")
    sublinear = "on" if layout.sublinear else "off"
    return [str(cell) for cell in (plan.run_id, *numbers, *bn, sublinear, f"{schedule.lr:g}", schedule.steps)]


def _bn(plan: Plan) -> str:
    bn_size, layout = plan.config.bn_size, plan.layout
    if bn_size == 0:
        return "bn_size 0: BN is frozen"
    if layout.bn_splits > 1:
        return f"images_per_gpu {layout.images_per_gpu} = bn_splits {layout.bn_splits} x bn_size {bn_size}"
    return f"bn_size {bn_size} = bn_group {layout.bn_group} x images_per_gpu {layout.images_per_gpu}"


def _keys(point: Point) -> set[str]:
    return {override.partition("=")[0] for override in point.asked.overrides}
