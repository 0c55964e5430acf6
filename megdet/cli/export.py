"""`megdet export`: a trained run's detector for programs without megdet."""

from __future__ import annotations

import argparse
from pathlib import Path

from megdet.cli.runs import select_run

SUMMARY = "hand a trained detector on: a model of torchvision's own, without megdet"
HELP = """\
Write the detector of a trained run so that torchvision's own Faster R-CNN loads it (strictly) and detects the same:

  detector.pt     the state dict
  detector.json   sizes, thresholds, classes
  detector.py     makes the model of the two; needs no megdet: python detector.py photo.jpg

  megdet export b256-bn16                    into exported/RUN
  megdet export b256-bn16 --out mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="one run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where it goes (exported/RUN)")


def run(parsed: argparse.Namespace) -> int:
    """Export; always 0."""
    folder = select_run(parsed.run_name)
    # Imported here: they bring torch.
    from megdet.trained.export import export_torchvision
    from megdet.trained.run import TrainedRun

    out = export_torchvision(TrainedRun(folder.path), parsed.out or Path("exported") / folder.name)
    print(f"{out}: try it with `python {out / 'detector.py'} IMAGE`")
    return 0
