"""`megdet advise`: which batch to use, by the gradient noise scale that a run has measured, and by branches of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from megdet.cli.runs import select_run
from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.planning.critical_batch import EpochNoise, Estimate, Progress, usual_batches
from megdet.planning.plan import config_in, make_plan
from megdet.runs.as_json import print_json
from megdet.runs.data_places import located
from megdet.runs.folder import RunFolder
from megdet.runs.journal import NOISE_SCALE, read_journal
from megdet.runs.prediction import SOURCES
from megdet.sweep.batch_needs import BatchNeeds, needs_of
from megdet.sweep.branches import Branch, branches_of, train_branches

SUMMARY = "which batch to use: what each would need for a run's result, by the noise in its gradients"
HELP = """\
Say what other batches would need for the result of a run: epochs, steps, hours and GPU-hours. A step's gradient is
signal and chance; their ratio, the gradient noise scale (McCandlish et al. 2018), says how far a larger batch pays.
At the critical batch a run needs twice the fewest steps and twice the fewest images. The run has to have measured it:

  megdet launch batch=64 bn_size=16 noise_scale_every=20
  megdet advise b64-bn16                        by epoch and module, and a table of batches
  megdet advise b64-bn16 --batches 64,256,1024
  megdet advise b64-bn16 --branch 32,64,128     train on from its last weights at each batch, over the same images

The prediction takes for granted that each batch has its best learning rate. A branch is a run like any other: it is
trained here, kept in the run's folder of runs, not trained again when it is there, and shown from then on.
"""
SHOWN_EPOCHS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="one that has measured its noise scale")
    parser.add_argument("--batches", type=_batches, metavar="N,...", help="those of the table (16, 32, ...)")
    parser.add_argument("--branch", type=_batches, metavar="N,...", help="batches to train on at, from its checkpoint")
    parser.add_argument("--epochs", type=_epochs, default=1, metavar="N", help="of each branch (1)")
    parser.add_argument("--json", action="store_true", help="print JSON (docs/programs.md has its keys)")


def run(parsed: argparse.Namespace) -> int:
    """Print what is known; the exit code. Raises UserError where the run has measured nothing."""
    folder = select_run(parsed.run)
    config = located(config_in(folder.plan.read_bytes()), folder)
    code = train_branches(folder, config, parsed.branch, parsed.epochs) if parsed.branch else ExitCode.OK
    lines = read_journal(folder, kinds=("epoch",))
    branches = branches_of(folder, config)
    measured = [line for line in lines if NOISE_SCALE in line]
    if not measured and not branches:
        raise UserError(_why_nothing(folder, config))
    noise = [
        EpochNoise(line["epoch"], line[NOISE_SCALE], line[f"{NOISE_SCALE}_error"])
        for line in measured
        if line[NOISE_SCALE] is not None
    ]
    plan = make_plan(config)
    progress = Progress(noise, batch=config.batch, steps=plan.schedule.steps_per_epoch) if noise else None
    critical = progress.critical_batch() if progress else None
    rows: list[BatchNeeds] = []
    if progress and critical:
        most = plan.config.data.train_images or 0
        usual = usual_batches(batch=config.batch, bn_size=config.bn_size, critical=critical.value, most=most)
        rows = needs_of(parsed.batches or usual, progress, config, folder.path.parent, epochs=len(noise))
    if parsed.json:
        print_json(
            {
                "run": folder.name,
                "batch": config.batch,
                "critical_batch": asdict(critical) if critical else None,
                "epochs": [_noise_in(line) for line in measured],
                "batches": [asdict(row) for row in rows],
                "branches": [asdict(branch) for branch in branches],
            }
        )
        return code
    if measured:
        _print_noise(folder, measured)
    if critical:
        _print_batches(rows, critical, config, epochs=len(noise))
    if branches:
        _print_branches(branches)
    return code


def _why_nothing(folder: RunFolder, config: Config) -> str:
    if config.noise_scale_every:
        layout = make_plan(config).layout
        why = "has no epoch behind it yet" if layout.independent_gradients > 1 else "has one gradient a step"
        return (
            f"{folder.name} {why}: there is no noise scale to go by; `megdet launch` says in its notes what to change"
        )
    return (
        f"{folder.name} has not measured its noise scale; launch it with noise_scale_every=20 (a run that is over: "
        "with sweep.on_existing=force, or as another seed), or let branches show it: --branch "
        f"{config.batch},{2 * config.batch}"
    )


def _noise_in(line: dict[str, Any]) -> dict[str, Any]:
    modules = {
        name.removeprefix(f"{NOISE_SCALE}."): {"value": value, "error": line[f"{name}_error"]}
        for name, value in line.items()
        if name.startswith(f"{NOISE_SCALE}.") and not name.endswith("_error")
    }
    return {
        "epoch": line["epoch"],
        "all": {"value": line[NOISE_SCALE], "error": line[f"{NOISE_SCALE}_error"]},
        "modules": modules,
    }


def _print_noise(folder: RunFolder, lines: Sequence[dict[str, Any]]) -> None:
    stride = -(-len(lines) // SHOWN_EPOCHS)
    shown = [_noise_in(line) for line in lines if (lines[-1]["epoch"] - line["epoch"]) % stride == 0]
    modules = list(shown[-1]["modules"])
    rows = [
        [str(one["epoch"]), _estimate(one["all"]), *(_estimate(one["modules"].get(name)) for name in modules)]
        for one in shown
    ]
    print(f"{folder.name}: gradient noise scale in images, ± standard error")
    _print_table(["epoch", "all", *modules], rows)


def _print_batches(rows: Sequence[BatchNeeds], critical: Estimate, config: Config, *, epochs: int) -> None:
    print(f"critical batch over {epochs} epochs: {_estimate(asdict(critical))}")
    print(f"for what batch {config.batch} has learned in {epochs} epochs, by prediction:")
    cells = []
    for row in rows:
        cells.append(
            [
                f"{row.batch}{' *' if row.batch == config.batch else ''}",
                _estimate(asdict(row.epochs)),
                f"{row.steps:,.0f}",
                "?" if row.gpus is None else str(row.gpus),
                "?" if row.hours is None else f"{row.hours:,.3g}",
                "?" if row.gpu_hours is None else f"{row.gpu_hours:,.4g}",
            ]
        )
    _print_table(["batch", "epochs", "steps", "gpus", "hours", "GPU-hours"], cells)
    if sources := sorted({row.predicted_from for row in rows if row.predicted_from}):
        print(f"*: the run's own. Hours are predicted from {' and '.join(SOURCES.get(one, one) for one in sources)}")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.why:
            reasons.setdefault(row.why, []).append(str(row.batch))
    for reason, batches in reasons.items():
        print(f"batch {', '.join(batches)}: {reason}")


def _print_branches(branches: Sequence[Branch]) -> None:
    print("trained on from its weights, over the same images:")
    _print_table(
        ["batch", "epochs", "steps", "loss", "mmAP", "run"],
        [
            [
                str(one.batch),
                str(one.epochs),
                f"{one.steps:,}",
                one.status if one.loss is None else f"{one.loss:.4f}",
                "?" if one.mmAP is None else f"{one.mmAP:.1f}",
                one.run,
            ]
            for one in branches
        ],
    )


def _estimate(one: dict[str, Any] | None) -> str:
    if one is None or one["value"] is None:
        return "?"
    return _rounded(one["value"]) + ("" if one["error"] is None else f" ± {_rounded(one['error'])}")


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # Imported here: --help should not wait for it.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=160, highlight=False, markup=False).print(table)


def _batches(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 100_000 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} are no batches, such as 16,32,64")
    return sorted(set(map(int, parts)))


def _epochs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text} is no number of epochs")
    return int(text)
