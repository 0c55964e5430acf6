"""The cost model fitted to the paper's 20 training times, and how far it can be trusted.

Least squares on relative errors, coefficients not negative. Each time is also predicted from the others alone, once
without its row and once without its row's layout (`normal` and `long` share one): the second is the stricter.
The form of the model was chosen with an eye on these very times, so expect more on another cluster.

    python -m megdet.planning.cost_fit                                  the fit and its leave-one-out error
    python -m megdet.planning.cost_fit --batch 256,4096 --bn-size 16    where more GPUs stop paying
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import yaml  # type: ignore[import-untyped]

from megdet.config.locations import SWEEPS
from megdet.config.schedule import ScheduleSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.cost import TABLE3, CostModel, all_reduce_s
from megdet.planning.layout import Layout
from megdet.planning.plan import Plan, make_plan

LONG = ScheduleSettings(name="long", epochs=18, milestones=[11, 14, 17], factors=[0.1, 0.1, 0.5])
NODES, GPUS_PER_NODE, MAX_IMAGES_PER_GPU = 16, 8, 8
"""The paper's cluster, as in conf/cluster/paper.yaml."""
PAYS_FROM = 1.5
"""Doubling the GPUs pays as long as it makes training this much faster."""


@dataclass(frozen=True)
class Time:
    """One time of Table 3."""

    label: str
    plan: Plan
    hours: float


def table3_times() -> list[Time]:
    """The 20 times, with the plans of their rows on the paper's cluster."""
    rows = yaml.safe_load((SWEEPS / "table3.yaml").read_text())["rows"]
    return [Time(row["label"], _plan(**row["ask"]), float(row["paper"]["Time (h)"])) for row in rows]


def fit(times: Sequence[Time]) -> CostModel:
    """The model with the least squared relative error over `times`."""
    rows = [[part / time.hours for part in _parts(time.plan)] for time in times]
    targets = [1 - time.plan.schedule.steps * all_reduce_s(time.plan.layout) / 3600 / time.hours for time in times]
    image_s, sublinear_s, bn_wait_s, constant_hours = _not_negative_least_squares(rows, targets)
    return CostModel(image_s, sublinear_s, bn_wait_s, constant_hours)


def left_out_errors(times: Sequence[Time], *, whole_layouts: bool = False) -> list[float]:
    """Each time's relative error when predicted from the others (from other layouts alone)."""
    errors = []
    for left_out in times:
        others = [
            time
            for time in times
            if time is not left_out and not (whole_layouts and _setting(time) == _setting(left_out))
        ]
        errors.append(fit(others).hours(left_out.plan) / left_out.hours - 1)
    return errors


def print_fit() -> None:
    """The coefficients, each time beside its prediction, and the errors."""
    times = table3_times()
    model = fit(times)
    single, strict = left_out_errors(times), left_out_errors(times, whole_layouts=True)
    print("Table 3 (hours)     batch  bn_size  gpus  paper  fitted  left out  layout left out")
    for time, one, other in zip(times, single, strict, strict=True):
        config = time.plan.config
        print(
            f"{time.label:18} {config.batch:6} {config.bn_size:8} {time.plan.layout.gpus:5} {time.hours:6.1f} "
            f"{model.hours(time.plan):7.1f} {one:+9.1%} {other:+16.1%}"
        )
    fitted = [abs(model.hours(time.plan) / time.hours - 1) for time in times]
    print("\nabsolute relative error     median    mean   worst")
    for name, errors in (("fitted", fitted), ("left out", single), ("layout left out", strict)):
        sizes = [abs(error) for error in errors]
        print(f"{name:26} {statistics.median(sizes):7.1%} {statistics.mean(sizes):7.1%} {max(sizes):7.1%}")
    print(f"\nrows that were measured twice (normal and long) differ by {_repeatability(times):.0%} an epoch (median)")
    print(f"\nfitted:  {_rounded(model)}\nin use:  {TABLE3}")


def print_scaling(batch: int, *, bn_size: int, gpus_per_node: int, schedule: str) -> None:
    """Hours and GPU-hours of one experiment on more and more GPUs. Raises UserError where there is no layout."""
    plans = list(_plans_on_more_gpus(batch, bn_size, gpus_per_node, schedule))
    if not plans:
        raise UserError(f"batch={batch}, bn_size={bn_size}: no layout on nodes of {gpus_per_node} GPUs")
    print(f"batch {batch}, bn_size {bn_size}, schedule {schedule}, {gpus_per_node} GPUs a node, by Table 3's GPUs")
    print("  gpus  nodes  images_per_gpu  accumulation    hours  GPU-hours  faster than with half")
    before: tuple[int, float] | None = None
    enough = 0
    for plan in plans:
        layout, hours = plan.layout, TABLE3.hours(plan)
        faster = before[1] / hours if before and 2 * before[0] == layout.gpus else None
        print(
            f"{layout.gpus:6} {layout.nodes:6} {layout.images_per_gpu:15} {layout.accumulation:13} {hours:8.2f} "
            f"{hours * layout.gpus:10,.0f}" + (f" {faster:12.2f}x" if faster else "")
        )
        if faster and faster < PAYS_FROM and before and not enough:
            enough = before[0]
        before = layout.gpus, hours
    if enough:
        print(f"beyond {enough} GPUs more stop paying: twice as many are less than {PAYS_FROM:g} times as fast")
    else:
        print(f"more GPUs pay up to {plans[-1].layout.gpus}, the most that this batch can be laid over")
    print(f"of which {TABLE3.constant_hours:.2f} hours do not shrink with the GPUs")


def _plans_on_more_gpus(batch: int, bn_size: int, gpus_per_node: int, schedule: str) -> Iterator[Plan]:
    gpus = 1
    while gpus <= batch:
        nodes = max(1, gpus // gpus_per_node)
        with suppress(UserError):
            yield _plan(batch, bn_size, schedule, gpus, nodes=nodes, gpus_per_node=gpus_per_node)
        gpus *= 2


def _plan(
    batch: int,
    bn_size: int,
    schedule: str,
    gpus: int,
    *,
    nodes: int = NODES,
    gpus_per_node: int = GPUS_PER_NODE,
) -> Plan:
    config = Config(batch=batch, bn_size=bn_size, gpus=gpus)
    config.cluster.nodes, config.cluster.gpus_per_node = nodes, gpus_per_node
    config.cluster.max_images_per_gpu = MAX_IMAGES_PER_GPU
    if schedule == "long":
        config.schedule = LONG
    return make_plan(config)


def _parts(plan: Plan) -> tuple[float, float, float, float]:
    """Hours of the plan for each coefficient of the model, if it were 1."""
    layout, unit = plan.layout, CostModel(0, 0, 0, 0)
    steps_h = plan.schedule.steps / 3600
    base = unit.step_s(layout)
    return (
        steps_h * (CostModel(1, 0, 0, 0).step_s(layout) - base),
        steps_h * (CostModel(0, 1, 0, 0).step_s(layout) - base),
        steps_h * (CostModel(0, 0, 1, 0).step_s(layout) - base),
        1.0,
    )


def _not_negative_least_squares(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> list[float]:
    """The `x >= 0` that is least in |rows x - targets|: one coordinate after the other until nothing moves."""
    width = range(len(rows[0]))
    scale = [sum(row[i] ** 2 for row in rows) ** 0.5 or 1.0 for i in width]
    gram = [[sum(row[i] * row[j] for row in rows) / scale[i] / scale[j] for j in width] for i in width]
    right = [sum(row[i] * target for row, target in zip(rows, targets, strict=True)) / scale[i] for i in width]
    x = [0.0 for _ in width]
    for _ in range(100_000):
        moved = 0.0
        for i in width:
            if not gram[i][i]:
                continue
            new = max(0.0, x[i] + (right[i] - sum(gram[i][j] * x[j] for j in width)) / gram[i][i])
            moved, x[i] = max(moved, abs(new - x[i])), new
        if moved < 1e-12:
            break
    return [value / scale[i] for i, value in enumerate(x)]


def _setting(time: Time) -> tuple[int, int, Layout]:
    return time.plan.config.batch, time.plan.config.bn_size, time.plan.layout


def _repeatability(times: Sequence[Time]) -> float:
    """Median difference of hours per epoch between `normal` and `long` of the same row."""
    epochs: dict[tuple[int, int, Layout], list[float]] = {}
    for time in times:
        epochs.setdefault(_setting(time), []).append(time.hours / time.plan.schedule.epochs)
    return statistics.median(max(pair) / min(pair) - 1 for pair in epochs.values() if len(pair) == 2)


def _rounded(model: CostModel) -> CostModel:
    return CostModel(
        round(model.image_s, 4), round(model.sublinear_s, 4), round(model.bn_wait_s, 4), round(model.constant_hours, 3)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 for a mistake in what was asked."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.planning.cost_fit",
        description=(
            "What training takes by the times of the paper's Table 3. Without arguments: the fit and its error. "
            "With --batch: hours and GPU-hours on more and more GPUs, and where they stop paying."
        ),
    )
    parser.add_argument("--batch", type=_numbers, metavar="N,...", help="batch sizes to lay over more and more GPUs")
    parser.add_argument("--bn-size", type=int, default=16, metavar="N", help="images behind a BN statistic (16)")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="default: 8, the paper's")
    parser.add_argument("--schedule", choices=("normal", "long"), default="normal", help="default: normal")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.batch is None:
            print_fit()
        for batch in parsed.batch or []:
            print_scaling(batch, bn_size=parsed.bn_size, gpus_per_node=parsed.gpus_per_node, schedule=parsed.schedule)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
