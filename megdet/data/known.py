"""Data sets whose name says their content; any other is known by its fingerprint."""

from __future__ import annotations

COCO = "coco2017"
COCO_COUNTS = (118287, 5000, 80)
"""Training images, validation images and categories of COCO 2017."""

GENERATED = {"shapes": 1, "digits": 1}
"""The sets that megdet generates, each by the module of its name, with the version of that module: to be raised when
the same settings would give another set."""
CLASSES = {"shapes": 6, "digits": 10}
SEED = 0
"""Of the generated sets that runs train on."""
LEAST_SIZE = 48
"""The smallest side of a generated image, in pixels."""


def generated_as(name: str) -> str:
    """What the content of a generated set is known by, its own settings aside."""
    return f"{name}-{GENERATED[name]}"
