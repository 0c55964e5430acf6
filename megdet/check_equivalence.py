"""Holds a part of your own to the promise: the hardware never changes what is learned.

    python -m megdet.check_equivalence model/backbone=mine
    python -m megdet.check_equivalence --config-dir DIR optimizer=mine model/roi_pool=mine

Overrides are those of `megdet launch`; the part is what they choose. In float64, on eight small drawn images, the
detector takes two steps on five layouts (GPUs x images per GPU x passes; CPU processes stand in for GPUs), once more
with sublinear memory, and once stopped after the first step and resumed from its checkpoint. All have to come to the
same weights and running statistics; torch's random generators are seeded otherwise each time.

A difference is that of a tensor, relative to how far training has moved it. Rounding in float64 leaves 1e-13 or so, a
part that computes in float32 inside 1e-7; above {most:g} something depends on the layout: images that share a GPU,
the number of passes, a random generator, or something that a checkpoint does not hold.

Exit code: 0 all the same, 1 something differs, 2 a mistake in what was asked.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megdet.config.compose import compose
from megdet.config.schema import Config
from megdet.data.generated import generate
from megdet.data.known import CLASSES
from megdet.data.settings import DataSettings
from megdet.errors import ExitCode, UserError
from megdet.settings.own_part import TARGET
from megdet.studies.two_steps import Case, StandIns, State

MOST = 1e-6
"""Largest difference that still counts as the same."""
BATCH, BN_SIZE = 8, 4
IMAGES, IMAGE_SIZE = 16, 64
STILL = 1e-9
"""A tensor that has moved less than this share of the one that moved furthest counts as if it had moved so far."""

TABLE_WIDTH = 140

CASES = (
    Case("1 GPU x 8 images", 1, 8),
    Case("2 GPUs x 4 images", 2, 4),
    Case("4 GPUs x 2 images", 4, 2),
    Case("2 GPUs x 2 images x 2 passes", 2, 2),
    Case("1 GPU x 4 images x 2 passes", 1, 4),
    Case("sublinear memory, 2 GPUs x 4 images", 2, 4, sublinear=True),
    Case("stopped and resumed, 1 GPU x 8 images", 1, 8, resumed=True),
)
"""The first is what the others are compared with."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line chooses, and print a table; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(words):
        print("usage: python -m megdet.check_equivalence [--config-dir DIR] OVERRIDE ...\n")
        print((__doc__ or "").format(most=MOST))
        return ExitCode.OK
    try:
        config = _config_of(words)
        print(f"checking {_described(config)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="megdet-check-") as folder:
            return _report(config, Path(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return ExitCode.USER_ERROR


def _config_of(words: list[str]) -> Config:
    """What is asked, on small drawn images; BN over BN_SIZE of them unless it is frozen."""
    folders = []
    while "--config-dir" in words:
        place = words.index("--config-dir")
        folders += words[place + 1 : place + 2]
        del words[place : place + 2]
    config = compose(words, folders=folders)
    config.batch, config.bn_size = BATCH, BN_SIZE if config.bn_size else 0
    config.precision, config.seed = "fp32", 0
    config.tracking.enabled = False
    config.model.init_from = config.model.init_sha256 = None
    config.cluster.nodes, config.cluster.gpus_per_node = 1, 4
    config.cluster.max_images_per_gpu = config.cluster.gpu_memory_gb = None
    return config


def _described(config: Config) -> str:
    """The parts that can be one's own, with their paths where they are."""
    model = config.model
    parts: dict[str, Any] = {
        "model/backbone": model.backbone,
        "model/norm": model.norm,
        "model/roi_pool": model.roi_pool,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
    }
    return ", ".join(
        f"{key}={part.name}" + (f" ({part.custom[TARGET]})" if part.custom is not None else "")
        for key, part in parts.items()
    )


def _report(config: Config, folder: Path) -> ExitCode:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    generate("shapes", folder / "data", train_images=IMAGES, val_images=2, image_size=IMAGE_SIZE, seed=0)
    config.data = DataSettings(
        name="shapes", root=str(folder / "data"), train_images=IMAGES, val_images=2, num_classes=CLASSES["shapes"],
        min_size=IMAGE_SIZE, max_size=IMAGE_SIZE * 3 // 2, train_scales=config.data.train_scales, workers=0,
    )  # fmt: skip
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("two steps on", "difference", ""):
        table.add_column(heading, no_wrap=True)
    code = ExitCode.OK
    start: State = {}
    expected: State = {}
    with StandIns(max(case.gpus for case in CASES)) as ranks:
        for number, case in enumerate(CASES):
            before, after = ranks.take(config, case, folder / str(number), seed=number)
            if not expected:
                start, expected = before, after
                table.add_row(case.name, "", "what the others are held to")
                continue
            name, difference = _largest_difference(start, expected, after)
            same = difference <= MOST
            table.add_row(case.name, f"{difference:.1e}", "the same" if same else f"DIFFERS, most in {name}")
            code = code if same else ExitCode.RUN_FAILED
    Console(width=TABLE_WIDTH, highlight=False, markup=False).print(table)
    print("What is learned does not depend on the layout." if code == ExitCode.OK else _verdict())
    return code


def _verdict() -> str:
    return (
        "What is learned depends on the layout: runs of this part would mean another thing on other hardware. "
        "docs/extending.md says what a part may depend on."
    )


def _largest_difference(start: State, expected: State, found: State) -> tuple[str, float]:
    """Of all tensors the one that differs most, relative to how far it moved."""
    moved = {name: float((expected[name] - start[name]).abs().max()) for name in expected if expected[name].numel()}
    floor = STILL * max(moved.values())
    if floor == 0:
        raise UserError("two steps have changed no weight: there is nothing to compare; is the learning rate 0?")
    if expected.keys() != found.keys():
        return sorted(expected.keys() ^ found.keys())[0], float("inf")
    differences = {name: float((found[name] - expected[name]).abs().max()) / max(moved[name], floor) for name in moved}
    worst = max(differences, key=lambda name: differences[name] if differences[name] == differences[name] else 1e300)
    return worst, differences[worst]


if __name__ == "__main__":
    sys.exit(main())
