"""Data sets whose content is known by their name; that of any other is known by its fingerprint alone."""

from __future__ import annotations

COCO = "coco2017"
COCO_COUNTS = (118287, 5000, 80)
"""Training images, validation images and categories of COCO 2017."""

SHAPES = "shapes"
SHAPES_VERSION = 1
"""Of the generator (`megdet.data.shapes`): to be raised when the same settings would give another set."""


def generated_as() -> str:
    """What the content of a generated set is known by, its own settings aside."""
    return f"{SHAPES}-{SHAPES_VERSION}"
