"""Figures of the paper, and a few more, from whatever runs exist.

    python analysis/make_figures.py                           the runs in ./runs, all figures, into results/
    python analysis/make_figures.py --figure bn_size --figure loss seed=0,1,2
    python analysis/make_figures.py --from sqlite:////data/mlflow.db --out figures/

small_and_large (Figure 1), proposals (Figure 2), long_policy (Figure 4), detections (Figure 5), training_time and
improvement (the talk's bars), validation_curves (all rows), speed_up (against GPUs), bn_size (mmAP against BN size),
learning_rate, loss: each as .png and .svg, where there are runs for it. Further groups of runs that are not
comparable with the first get files of their own (loss-2.png, ...).
Dashed lines are the learning rate's drops; a cross is where training diverged. The paper's numbers are grey,
hollow or hatched, or in a panel of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.analysis.comparable import Group, comparable_groups
from megdet.analysis.figures import (
    bn_size,
    detections,
    improvement,
    learning_rate,
    long_policy,
    loss,
    proposals,
    small_and_large,
    speed_up,
    training_time,
    validation,
)
from megdet.analysis.figures.pictures import RESOLUTION, save_small, with_jpegs
from megdet.analysis.frames import STEPS, read_runs
from megdet.analysis.options import add_all_option, add_run_options, program_of, wanted_of, without_failed
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.wanted import select
from megdet.errors import UserError
from megdet.settings.paths import writing_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[Group], Figure | None]] = {
    figure.NAME: figure.draw
    for figure in (
        small_and_large, proposals, long_policy, detections, training_time, improvement, validation, speed_up, bn_size,
        learning_rate, loss,
    )
}  # fmt: skip
"""The paper's (Figures 1, 2, 4 and 5), the talk's, and what a reader wants besides."""
OF_STEPS = (learning_rate.NAME, loss.NAME)


COMMAND = "python analysis/make_figures.py"


def main(arguments: Sequence[str] | None = None, *, command: str = COMMAND) -> int:
    """Run the command line, in whose help the program is called `command`; the exit code."""
    parsed = _parser(command).parse_intermixed_args(arguments)
    names = parsed.figure or list(FIGURES)
    steps = STEPS if any(name in OF_STEPS for name in names) else ()
    try:
        runs = without_failed(select(read_runs(parsed.source, steps=steps), **wanted_of(parsed)), parsed)
        written = write_figures(runs, parsed.out, names)
    except UserError as error:
        print(f"{program_of(command)}: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(f"written to {path}")
    return 0


def write_figures(runs: RunFrames, out: Path, names: Sequence[str] = tuple(FIGURES)) -> list[Path]:
    """Write the figures of each group of comparable runs as PNG and SVG; the files. UserError without any."""
    written = []
    for name in names:
        for place, figure in enumerate(figures_of(runs, name), start=1):
            with writing_to(out, way_out="give the path of a folder that can"):
                out.mkdir(parents=True, exist_ok=True)
                written += save(figure, out / (name if place == 1 else f"{name}-{place}"))
    if not written:
        if len(runs.epochs):
            raise UserError(f"the runs have nothing to show in {', '.join(names)} yet")
        raise UserError("no run has finished an epoch yet; a curve needs one")
    return written


def figures_of(runs: RunFrames, name: str) -> list[Figure]:
    """One figure per group of comparable runs that has something to show in it."""
    return [figure for group in comparable_groups(runs) if (figure := FIGURES[name](group)) is not None]


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure beside `path` as .png and .svg, the same bytes for the same runs."""
    from matplotlib import rc_context

    png, svg = (path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg"))
    pictures = any(axes.images for axes in figure.axes)
    with rc_context({"svg.hashsalt": path.name}):
        # Pictures have pixels of their own: more of them make the file large and nothing sharper.
        figure.savefig(png, dpi=RESOLUTION if pictures else 200)
        figure.savefig(svg, metadata={"Date": None})
    if pictures:
        save_small(png)
        svg.write_text(with_jpegs(svg.read_text(encoding="utf-8")), encoding="utf-8")
    return [png, svg]


def _parser(command: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = (__doc__ or "").replace(COMMAND, command)
    parser = argparse.ArgumentParser(prog=command, description=description, formatter_class=raw)
    parser.add_argument("--figure", action="append", choices=list(FIGURES), help="may be given again; default: all")
    add_run_options(parser)
    add_all_option(parser)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder to write to; default: results/")
    return parser
