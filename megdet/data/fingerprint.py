"""The fingerprint of a data set: a hash of everything in it that decides a run's result.

Of the annotation files their meaning (what `Annotations` holds, in the file's order, for the order decides which images
make a batch), so that other words, segmentation or annotation ids change nothing; masks, where they are
learned, have a fingerprint of their own. Of the images their names and sizes in bytes, not their pixels: hashing COCO
would read 19 GB for every plan. Pixels that change and keep the file's size to the byte are therefore not noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotations import Annotations
from megdet.data.masks import Masks

FINGERPRINT_VERSION = 1
DIGITS = 12


def fingerprint(splits: Sequence[tuple[Annotations, NDArray[np.int64]]]) -> str:
    """12 hex digits of a SHA-256 over training and validation images; with each split the bytes of its image files."""
    digest = hashlib.sha256(f"megdet data {FINGERPRINT_VERSION}".encode())
    for split, file_sizes in splits:
        names = [split.file_names, split.category_names]
        _add(digest.update, json.dumps(names).encode())
        for array, kind in (
            (split.image_ids, "<i8"),
            (split.sizes, "<i8"),
            (split.category_ids, "<i8"),
            (split.owner, "<i8"),
            (split.labels, "<i8"),
            (split.boxes, "<f8"),
            (split.areas, "<f8"),
            (split.crowds, "u1"),
            (file_sizes, "<i8"),
        ):
            # Adding 0 makes -0.0, which means the same, 0.0.
            _add(digest.update, (array.astype(kind) + np.zeros((), kind)).tobytes())
    return digest.hexdigest()[:DIGITS]


def masks_fingerprint(splits: Sequence[Masks]) -> str:
    """12 hex digits of a SHA-256 over the masks of training and validation images."""
    digest = hashlib.sha256(f"megdet masks {FINGERPRINT_VERSION}".encode())
    for masks in splits:
        _add(digest.update, masks.codes.tobytes())
        _add(digest.update, masks.ends.astype("<i8").tobytes())
    return digest.hexdigest()[:DIGITS]


def _add(update: Callable[[bytes], object], content: bytes) -> None:
    update(len(content).to_bytes(8, "little"))
    update(content)
