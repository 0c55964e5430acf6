"""What a user may say about where own data lies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SplitSettings:
    """The files of the training or of the validation images; paths are below `data.root`, or absolute."""

    annotations: str | None = None
    """A COCO annotation file; None: where COCO 2017 has it below `data.root`."""
    images: str | None = None
    """The folder that the file names in it start from; None: the folder of the annotation file."""
