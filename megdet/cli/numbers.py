"""Numbers on the command line, for argparse's `type`: it names the option where one makes no sense."""

from __future__ import annotations

import argparse
import math

MOST_SECONDS = 1e6


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return number


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 0")
    return int(text)
