"""The backbone of a trained run, as a file that other runs can start from: `model.backbone.weights=FILE`.

    python -m megdet.studies.backbone_weights runs/b16-bn16-normal-s0-0aac1120 data/tiny-backbone.pt
    python launch.py experiment=tiny model.backbone.weights=data/tiny-backbone.pt model.backbone.frozen_stages=2

Stands in for ImageNet's weights where there are none: for the `tiny` backbone, or without a network. What is in
the file is part of the ids of the runs that start from it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from megdet.errors import UserError
from megdet.runs.folder import RunFolder
from megdet.training.checkpoint import Checkpoint, write_tensors

BODY = "backbone.body."


def save_backbone(folder: Path, file: Path) -> int:
    """Write the body of the run's detector (without pyramid and heads) to `file`; how many numbers it has.

    Raises UserError where the folder has no checkpoint, or `file` exists: runs may have started from it.
    """
    checkpoint = Checkpoint.read(RunFolder(folder).checkpoint, torch.device("cpu"))
    if checkpoint is None:
        raise UserError(f"{folder} has no checkpoint.pt; name the folder of a run that has trained, one of runs/")
    if file.exists():
        raise UserError(f"{file} exists, and runs may have started from it; choose another name")
    body = {name.removeprefix(BODY): value for name, value in checkpoint.trained.items() if name.startswith(BODY)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, body)
    return sum(value.numel() for value in body.values())


def main() -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m megdet.studies.backbone_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("file", type=Path, help="where to write the weights")
    arguments = parser.parse_args()
    try:
        numbers = save_backbone(arguments.run, arguments.file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.file}: {numbers:,} numbers; use it with model.backbone.weights={arguments.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
