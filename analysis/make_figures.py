"""Validation curves of whatever runs exist: mmAP over epochs, and over training time.

    python analysis/make_figures.py                           the runs in ./runs, into results/
    python analysis/make_figures.py --from sqlite:////data/mlflow.db --out figures/

Writes validation_curves.png and .svg; further groups of runs that are not comparable with the first get
files of their own (validation_curves-2.png, ...). Dashed lines are the learning rate's drops; a cross is
where training diverged.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

if __package__ is None:  # run as `python analysis/make_figures.py`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from analysis.comparable import Group, comparable_groups
from analysis.paper import RowKey, key_of, label_of
from analysis.runs import RunRecord, load_runs, select
from megdet.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey print."""
MARKERS = "osD^vP*"
LINES = ("-", "--", ":", "-.")
"""Told apart by marker as well as colour; the next seven curves by line style."""


@dataclass(frozen=True)
class Curve:
    """mmAP of the runs of one row, averaged over their seeds."""

    label: str
    epochs: list[int]
    hours: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    diverged: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        runs = select(load_runs(parsed.source), experiment=parsed.experiment, model=parsed.model, data=parsed.data)
        written = write_figures(runs, parsed.out)
    except UserError as error:
        print(f"make_figures: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(f"written to {path}")
    return 0


def write_figures(runs: Sequence[RunRecord], out: Path) -> list[Path]:
    """Write one figure per group of comparable runs, as PNG and SVG; the files. UserError without a curve."""
    groups = [(group, curves_of(group)) for group in comparable_groups(runs)]
    groups = [(group, curves) for group, curves in groups if curves]
    if not groups:
        raise UserError("no run has finished an epoch yet; a curve needs one")
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (group, curves) in enumerate(groups, start=1):
        figure = validation_figure(group, curves)
        for suffix in ("png", "svg"):
            path = out / f"validation_curves{'' if number == 1 else f'-{number}'}.{suffix}"
            figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else None)
            written.append(path)
    return written


def curves_of(group: Group) -> list[Curve]:
    """One curve per row (batch, bn_size, schedule, lr.scale) that has an epoch with an mmAP."""
    rows: dict[RowKey, list[RunRecord]] = defaultdict(list)
    for run in group.runs:
        rows[key_of(run)].append(run)
    curves = []
    for key in sorted(rows, key=lambda key: (key[2] != "normal", key)):
        values: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for run in rows[key]:
            for line in run.epochs:
                mmAP, train_s = line.get("mmAP"), line.get("train_s")
                if mmAP is not None and train_s is not None:
                    values[int(line["epoch"] or 0)].append((mmAP, train_s / 3600))
        if values:
            epochs = sorted(values)
            curves.append(
                Curve(
                    label=f"{label_of(key)}, " + (f"BN {key[1]}" if key[1] else "frozen BN"),
                    epochs=epochs,
                    hours=[fmean(hours for _, hours in values[epoch]) for epoch in epochs],
                    mean=[fmean(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    low=[min(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    high=[max(mmAP for mmAP, _ in values[epoch]) for epoch in epochs],
                    seeds=max(len(points) for points in values.values()),
                    diverged=all(run.state == "diverged" for run in rows[key]),
                )
            )
    return curves


def validation_figure(group: Group, curves: Sequence[Curve]) -> Figure:
    """Both panels: over epochs (with the drops of the learning rate) and over hours."""
    from matplotlib.figure import Figure  # not pyplot: no display and no global state

    legend_rows = -(-len(curves) // 4)
    figure = Figure(figsize=(9, 4.2 + 0.22 * legend_rows), layout="constrained")
    by_epoch, by_hours = figure.subplots(1, 2, sharey=True)
    for epoch in sorted({epoch for run in group.runs for epoch in run.milestones}):
        by_epoch.axvline(epoch, color="0.6", linewidth=0.9, linestyle="--", zorder=0)
    _draw(by_epoch, curves, over="epochs")
    _draw(by_hours, curves, over="hours")
    by_epoch.set(xlabel="epoch", ylabel="mmAP (%)", ylim=(0, None))
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    by_hours.set(xlabel="training time (h)")
    if max(curve.hours[-1] for curve in curves) > 12 * min(curve.hours[-1] for curve in curves):
        by_hours.set_xscale("log")
        by_hours.xaxis.set_major_formatter("{x:g}")
    for axes in (by_epoch, by_hours):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = by_epoch.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(curves)), fontsize=8, frameon=False)
    figure.suptitle("\n".join(textwrap.wrap(group.title, 110)), fontsize=9)
    return figure


def _draw(axes: Axes, curves: Sequence[Curve], *, over: str) -> None:
    for place, curve in enumerate(curves):
        x = curve.epochs if over == "epochs" else curve.hours
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(
            x,
            curve.mean,
            label=curve.label + (f" ({curve.seeds} seeds)" if curve.seeds > 1 else ""),
            color=colour,
            marker=MARKERS[place % len(MARKERS)],
            linestyle=LINES[place // len(COLOURS) % len(LINES)],
            markersize=4,
            linewidth=1.4,
        )
        if curve.seeds > 1:
            axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        if curve.diverged:
            axes.plot(x[-1:], curve.mean[-1:], color=colour, marker="x", markersize=11, markeredgewidth=2.5)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER|URI", help="runs folder or MLflow URI; default: ./runs, else MLflow"
    )
    parser.add_argument("--experiment", help="only runs of this MLflow experiment")
    parser.add_argument("--model", help="only runs of this model")
    parser.add_argument("--data", help="only runs on this data set")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder to write to; default: results/")
    return parser


if __name__ == "__main__":
    sys.exit(main())
