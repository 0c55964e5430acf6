"""What a reader sees before a start: a table for a sweep, a few lines for a single run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from megdet.errors import printable
from megdet.planning.plan import Plan
from megdet.runs.folder import folder_of
from megdet.runs.prediction import SOURCES, Prediction, predict_all
from megdet.runs.times import duration_text
from megdet.settings.counted import counted
from megdet.settings.rules import shown
from megdet.sweep.points import Point

MAX_WIDTH = 240
"""Characters that a table may take; a narrower terminal breaks its lines rather than hide numbers."""

MOST_NUMBERS = 12
"""Of points that are listed for a reason that concerns many."""

_IN_THE_TABLE = {"sweep", "sweep.rows", "batch", "bn_size", "gpus", "schedule", "seed", "lr.scale"}
"""What a row shows anyway; a sweep over anything else gets a column of its own."""


def print_table(points: Sequence[Point]) -> None:
    """All points of a sweep, what is wrong with the invalid ones, and how many will run."""
    # Imported here: a single run has no table, and `--help` should not wait for it.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    costs = _costs(points)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    headings = ["#", "run", "batch", "bn_size", "gpus", "nodes", "images_\nper_gpu", "accumu-\nlation", "bn_group"]
    headings += ["bn_splits", "sub-\nlinear", "lr", "steps", "GB a\nGPU", "time", "GPU-hours", "status"]
    if not any(point.plan and point.plan.config.cluster.request_gpus for point in points):
        headings[4], headings[-4], headings[-2] = "pro-\ncesses", "GB a\nprocess", "process-\nhours"
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("run", "status") else "right", no_wrap=True)
    number_of = {point.plan.run_id: n for n, point in enumerate(points, start=1) if point.plan and point.status}
    any_forks = any(point.plan and point.plan.fork for point in points)
    if any_forks:
        table.add_column("first epochs\nare those of")
    swept_elsewhere = any(_keys(point) - _IN_THE_TABLE for point in points)
    if swept_elsewhere:
        table.add_column("asked")
    for number, point in enumerate(points, start=1):
        asked = [printable(" ".join(point.asked.overrides))] if swept_elsewhere else []
        forks = [_fork(point.plan, number_of)] if any_forks else []
        table.add_row(str(number), *_cells(point), *_cost_cells(point, costs.get(number)), point.shown, *forks, *asked)
    Console(width=MAX_WIDTH, highlight=False, markup=False).print(table)
    for why, numbers in _reasons(points).items():
        first = points[numbers[0] - 1]
        which = f"{numbers[0]}. {first.shown}: {printable(' '.join(first.asked.overrides))}"
        if len(numbers) > 1:
            which = (
                f"{', '.join(map(str, numbers[:MOST_NUMBERS]))}{' ...' * (len(numbers) > MOST_NUMBERS)}: {first.shown}"
            )
        print(f"{which}\n   " + why.replace("\n", "\n   "))
    counts = Counter(point.shown for point in points)
    print(", ".join(f"{count} {shown}" for shown, count in counts.items()))
    print(_total(points, costs) + _saved(points, costs), end="", flush=True)


def describe(point: Point) -> None:
    """A single run in a few lines; what is wrong with it goes to standard error."""
    if point.plan is None:
        print(point.why, file=sys.stderr, flush=True)
        return
    plan, layout, schedule = point.plan, point.plan.layout, point.plan.schedule
    print(f"{plan.run_id}: {point.shown}" + (f" ({point.why})" if point.why else ""))
    print(
        f"  batch {plan.config.batch} = {_ranks(plan)} {layout.gpus} x images_per_gpu {layout.images_per_gpu} "
        f"x accumulation {layout.accumulation}" + (f", on {layout.nodes} nodes" if layout.nodes > 1 else "")
    )
    print(f"  {_bn(plan)}")
    epochs = counted(schedule.epochs, "epoch")
    print(f"  lr {schedule.lr:g}, {counted(schedule.steps, 'step')} ({epochs} of {schedule.steps_per_epoch})")
    cost = _costs([point]).get(1)
    if cost:
        on_gpus = f", {cost.gpu_hours:.3g} GPU-hours" if plan.config.cluster.request_gpus else ""
        print(f"  about {duration_text(3600 * cost.hours)}{on_gpus} (predicted from {cost.source})")
    if memory := _memory(plan):
        one = "GPU" if plan.config.cluster.request_gpus else "process"
        print(f"  about {memory.removeprefix('~')} GB of memory a {one} (predicted)")
    if plan.fork:
        saved = f" ({duration_text(3600 * cost.shared_hours)} less)" if cost and cost.shared_hours else ""
        first = "epoch is" if plan.fork.epoch == 1 else f"{plan.fork.epoch} epochs are"
        print(f"  its first {first} taken from {plan.fork.run_id}, to the same bits{saved}")
    for note in plan.notes:
        print(f"  {note}")
    sys.stdout.flush()


def _reasons(points: Sequence[Point]) -> dict[str, list[int]]:
    """The remarks on points, each once, with the numbers of the points that it concerns."""
    reasons: dict[str, list[int]] = {}
    for number, point in enumerate(points, start=1):
        if point.why:
            reasons.setdefault(point.why, []).append(number)
    return reasons


def _cells(point: Point) -> list[str]:
    config, plan = point.asked.config, point.plan
    if plan is None:
        return ["", shown(config.batch), shown(config.bn_size), *[""] * 10]
    layout, schedule = plan.layout, plan.schedule
    numbers = (config.batch, config.bn_size, layout.gpus, layout.nodes, layout.images_per_gpu, layout.accumulation)
    bn = (layout.bn_group, layout.bn_splits) if config.bn_size else ("frozen", "")
    return [
        str(cell)
        for cell in (
            plan.run_id,
            *numbers,
            *bn,
            layout.sublinear_text,
            f"{schedule.lr:g}",
            schedule.steps,
            _memory(plan),
        )
    ]


def _memory(plan: Plan) -> str:
    """The predicted GB of a GPU; empty where nothing is known."""
    gb = plan.memory_gb
    if gb is None:
        return ""
    return f"~{gb:.2g}" if gb < 10 else f"~{gb:.0f}"


def _costs(points: Sequence[Point]) -> dict[int, Prediction]:
    """The predictions for points without a result, by point number."""
    left = {n: point.plan for n, point in enumerate(points, start=1) if point.plan and not _is_over(point)}
    return {n: cost for n, cost in zip(left, predict_all(left.values()), strict=True) if cost}


def _cost_cells(point: Point, cost: Prediction | None) -> tuple[str, str]:
    if cost:
        return f"~{duration_text(3600 * cost.hours)}", f"~{_short(cost.gpu_hours)}"
    state = folder_of(point.plan).state() if point.plan else None
    if point.plan is None or state is None or not _is_over(point):
        return "", ""
    return duration_text(state.train_s + state.eval_s), _short(state.gpu_hours(point.plan.layout.gpus))


def _total(points: Sequence[Point], costs: Mapping[int, Prediction]) -> str:
    """A line with the predicted cost of all runs to do; empty if there are none."""
    to_do = [number for number, point in enumerate(points, start=1) if _is_to_do(point)]
    known = [costs[number] for number in to_do if number in costs]
    if not to_do:
        return ""
    unknown = f", {len(to_do) - len(known)} not predicted (no such run is finished on such hardware)"
    sources = " and ".join(sorted({SOURCES.get(cost.source, cost.source) for cost in known}))
    hours, gpu_hours = sum(cost.hours for cost in known), sum(cost.gpu_hours for cost in known)
    on_gpus = any(point.plan and point.plan.config.cluster.request_gpus for point in points)
    total = f"{_short(gpu_hours)} GPU-hours, " if on_gpus else ""
    predicted = f": ~{total}{duration_text(3600 * hours)} one after the other (from {sources})"
    return f"{len(to_do)} to do{predicted if known else ''}{unknown if len(known) < len(to_do) else ''}\n"


def _fork(plan: Plan | None, number_of: Mapping[str, int]) -> str:
    """`8 of #1`, or `8 of b16-bn16-normal-s0-0123abcd` where that run is not in the table."""
    if plan is None or plan.fork is None:
        return ""
    run_id = plan.fork.run_id
    return f"{plan.fork.epoch} of " + (f"#{number_of[run_id]}" if run_id in number_of else run_id)


def _saved(points: Sequence[Point], costs: Mapping[int, Prediction]) -> str:
    """A line on what need not be trained twice; empty where there is nothing."""
    forked = {n: point.plan for n, point in enumerate(points, start=1) if point.plan and point.plan.fork}
    if not forked:
        return ""
    runs = "1 run takes its first epochs" if len(forked) == 1 else f"{len(forked)} runs take their first epochs"
    known = [n for n in forked if n in costs]
    hours = sum(costs[n].shared_hours for n in known)
    gpu_hours = sum(costs[n].shared_hours * forked[n].layout.gpus for n in known)
    on_gpus = any(plan.config.cluster.request_gpus for plan in forked.values())
    amount = f"~{_short(gpu_hours)} GPU-hours" if on_gpus else f"~{duration_text(3600 * hours)}"
    return f"{runs} from another, to the same bits{f': {amount} less' if known else ''}\n"


def _is_to_do(point: Point) -> bool:
    return point.is_started_by(point.asked.config.sweep.on_existing)


def _is_over(point: Point) -> bool:
    """Whether nothing is left to predict; the table shows what a result took."""
    return point.status is None or (point.status.is_result and not _is_to_do(point))


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _bn(plan: Plan) -> str:
    bn_size, layout = plan.config.bn_size, plan.layout
    if bn_size == 0:
        return "bn_size 0: BN is frozen"
    if layout.bn_splits > 1:
        return f"images_per_gpu {layout.images_per_gpu} = bn_splits {layout.bn_splits} x bn_size {bn_size}"
    return f"bn_size {bn_size} = bn_group {layout.bn_group} x images_per_gpu {layout.images_per_gpu}"


def _ranks(plan: Plan) -> str:
    """What trains: GPUs, or the CPU processes that stand in for them."""
    return "gpus" if plan.config.cluster.request_gpus else "processes"


def _keys(point: Point) -> set[str]:
    return {override.partition("=")[0] for override in point.asked.overrides}
