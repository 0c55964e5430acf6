"""The options of commands that look at images: at which sizes, and whether mirrored too."""

from __future__ import annotations

import argparse


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """`--sizes` (a list of numbers) and `--flip`, as `megdet.trained.views.views_of` takes them."""
    parser.add_argument(
        "--sizes", type=_sizes, default=[], metavar="N,N",
        help="look at each image at these sizes (pixels of the shorter side) and fuse what is found; else as trained",
    )  # fmt: skip
    parser.add_argument("--flip", action="store_true", help="look at each image mirrored too")


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: give whole numbers with commas, such as 600,800") from None
