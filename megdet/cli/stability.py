"""`megdet stability`: the largest stable learning rate and the shortest warm-up of experiments, by short trainings."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet.cli.numbers import count
from megdet.errors import ExitCode, UserError
from megdet.runs.as_json import print_json
from megdet.settings.counted import listed
from megdet.sweep.bisection import Edge

if TYPE_CHECKING:
    from megdet.sweep.stability import Row

FIGURES = (".png", ".svg", ".pdf")
SUMMARY = "where training begins to diverge: largest learning rate, shortest warm-up"
HELP = """\
Find the largest stable learning rate of each experiment, and the shortest warm-up at its own rate, by bisection over
short trainings. Overrides are those of `megdet launch -m`: lists and sweep= are experiments, a row each.

  megdet stability experiment=tiny batch=16,64 bn_size=16
  megdet stability sweep=table2 hydra/launcher=submitit_slurm --within 1.1 --seeds 0,1

A training diverges as any run does (docs/reliability.md), and ends there; one that does not is stable for as long as
it was: whole epochs, --steps or more, the warm-up and an epoch after it. Rates are doubled or halved from the row's own
on until the edge lies between two, and then bisected until they are --within a factor of each other. A rate is stable
where it is with every seed.

Each training is a run in .stability/ of runs_dir, without a checkpoint once it is over: the same command goes on, and
trains nothing twice. Rows go side by side, where the launcher can; sweep.max_gpu_hours holds for each round of them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="such as batch=16,64 bn_size=16 cluster=mine")
    parser.add_argument("--steps", type=count, default=200, metavar="N", help="that each trains, at least (200)")
    parser.add_argument(
        "--within", type=_factor, default=1.25, metavar="F", help="the edge is told to this factor (1.25)"
    )
    parser.add_argument("--seeds", type=_seeds, default=[0], metavar="N,...", help="each of which must be stable (0)")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="the picture (RUNS_DIR/.stability/stability.png)")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")


def run(parsed: argparse.Namespace) -> int:
    """Train, print the table and draw the picture; the exit code."""
    # Imported here: --help should not wait for Hydra.
    from megdet.config.experiments import compose_sweep
    from megdet.launchers.named import launcher_named
    from megdet.sweep.stability import Interrupted, find_edges

    if parsed.figure:
        _check_can_be_drawn(parsed.figure)
    asked, launcher_name = compose_sweep(parsed.overrides)
    for one in asked:
        one.config.sweep.wait = True
    launcher = launcher_named(launcher_name, asked[0].config)
    try:
        # Of the runs, what they say goes to standard error.
        with contextlib.redirect_stdout(sys.stderr):
            rows = find_edges(asked, launcher=launcher, steps=parsed.steps, within=parsed.within, seeds=parsed.seeds)
    except Interrupted as stopped:
        print("the others depend on these; the same command goes on", file=sys.stderr)
        return stopped.code
    if parsed.json:
        print_json({"within": parsed.within, "seeds": parsed.seeds, "rows": [_as_json(row) for row in rows]})
    else:
        _print(rows, within=parsed.within, seeds=parsed.seeds)
    file = parsed.figure or Path(rows[0].asked.config.runs_dir) / "stability.png"
    if _draw(rows, file, within=parsed.within, seeds=parsed.seeds):
        print(f"drawn in {file}", file=sys.stderr)
    return ExitCode.RUN_FAILED if any(row.why for row in rows) else ExitCode.OK


def _print(rows: Sequence[Row], *, within: float, seeds: Sequence[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("experiment", "lr\nas asked", "largest\nstable lr", "lr.scale", "diverges\nat lr"):
        table.add_column(heading, justify="left" if heading == "experiment" else "right", no_wrap=True)
    for heading in ("warm-up\nas asked", "shortest\nstable", "diverges\nat", "probes", "runs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=200, highlight=False, markup=False).print(table)
    steps, epochs = rows[0].plan.schedule.steps, rows[0].plan.schedule.epochs
    lengths = f"{steps} steps ({epochs} epochs)" if len(rows) == 1 else f"{steps} steps and more"
    print(f"edges to a factor of {within:g}, by {sum(row.runs for row in rows)} runs of {lengths}, "
          f"{len(seeds)} of each; warm-ups in steps")  # fmt: skip
    for row in rows:
        if row.why:
            print(f"{_label(row)}: given up; {row.why}")


def _cells(row: Row) -> tuple[str, ...]:
    rate, warmup = row.rate or Edge(None, None), row.warmup or Edge(None, None)
    asked = row.plan.schedule.warmup_steps
    return (
        _label(row),
        f"{row.plan.schedule.lr:.3g}",
        _number(rate.stable, times=row.lr) if rate.stable or not row.rate else "none",
        _number(rate.stable),
        _number(rate.diverged, times=row.lr),
        str(asked) if asked else "none",
        _number(warmup.stable) if warmup.stable is not None or not row.warmup else "none",
        _number(warmup.diverged),
        str(len(row.probes)),
        str(row.runs),
    )


def _label(row: Row) -> str:
    return " ".join(row.asked.overrides) or row.plan.name


def _number(value: float | None, *, times: float = 1.0) -> str:
    return "-" if value is None else f"{value * times:.3g}"


def _check_can_be_drawn(file: Path) -> None:
    """Raises UserError, before hours of training, where the figure could not be written."""
    try:
        if file.suffix not in FIGURES:
            raise ValueError(f"{file.suffix or 'without a suffix'} is no kind of figure")
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except (OSError, ValueError) as error:
        raise _cannot_be_drawn(file, error) from None


def _cannot_be_drawn(file: Path, error: Exception) -> UserError:
    return UserError(f"--figure {file}: {error}; name a {listed(FIGURES, 3)} in a folder that can be written")


def _draw(rows: Sequence[Row], file: Path, *, within: float, seeds: Sequence[int]) -> bool:
    """Whether there is anything to draw."""
    from megdet.analysis.figures.stability import TriedRates, draw
    from megdet.sweep.stability import RATE

    tried = []
    for row in rows:
        rates = [probe for probe in row.probes if probe.kind == RATE]
        stable = [probe.value * row.lr for probe in rates if probe.is_stable]
        diverged = [probe.value * row.lr for probe in rates if not probe.is_stable]
        if rates:
            tried.append(TriedRates(_label(row), row.plan.schedule.lr, stable, diverged))
    if not tried:
        return False
    seeds_text = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    title = f"Where training diverges within {rows[0].plan.schedule.steps} steps or more; {seeds_text}, to {within:g}x"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(tried, title).savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise _cannot_be_drawn(file, error) from None
    return True


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "asked": list(row.asked.overrides),
        "lr": row.plan.schedule.lr,
        "lr_at_scale_1": row.lr,
        "steps": row.plan.schedule.steps,
        "warmup_steps": row.plan.schedule.warmup_steps,
        "lr_scale": asdict(row.rate) if row.rate else None,
        "shortest_warmup_steps": asdict(row.warmup) if row.warmup else None,
        "probes": [asdict(probe) for probe in row.probes],
        "runs": row.runs,
        "why": row.why,
    }


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 < factor <= 2:
        raise argparse.ArgumentTypeError(f"{text} is no factor above 1 and up to 2")
    return factor


def _seeds(text: str) -> list[int]:
    return sorted({count(part) for part in text.split(",")})
