"""Checks the image files of a split: their headers, and whether they decode."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from megdet.data.coco import CocoSplit
from megdet.data.image_header import UnreadableImage, check_image_header
from megdet.data.size import Size


def check_headers(split: CocoSplit) -> Iterator[tuple[str, str]]:
    """For each image its file name and why it cannot be used; an empty reason where its header says nothing of it."""
    for index, name in enumerate(split.file_names):
        try:
            check_image_header(split.file(index), split.sizes[index])
        except UnreadableImage as error:
            yield name, str(error)
        else:
            yield name, ""


def check_pixels(split: CocoSplit) -> Iterator[tuple[str, str]]:
    """The same, with every image decoded as in training; on all cores."""
    files = [split.file(index) for index in range(len(split))]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        reasons = pool.map(_reason, files, split.sizes, chunksize=16)
        yield from zip(split.file_names, reasons, strict=True)


def _reason(file: Path, size: Size) -> str:
    # Imported in the worker: it brings torch.
    from megdet.data.images import load_image

    try:
        load_image(file, size)
    except UnreadableImage as error:
        return str(error)
    return ""
