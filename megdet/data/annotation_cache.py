"""Annotation files through the cache: COCO's 118k images take seconds once, then tenths of a second."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from megdet.data import cache
from megdet.data.annotations import READER_VERSION, Annotations, read_annotations
from megdet.data.masks import Masks

KEPT_FROM_BYTES = 1_000_000
"""Smaller files are read anew each time: it takes milliseconds."""
SLOW_FROM_BYTES = 100_000_000
"""Files so large take seconds, which a user should know."""

_ARRAYS = ("image_ids", "sizes", "category_ids", "owner", "labels", "boxes", "areas", "crowds")
_TEXTS = ("file_names", "category_names", "repairs")


def load_annotations(path: Path, *, masks: bool = False) -> Annotations:
    """The annotations of a file, from the cache if it was read before, masks included. Raises as `read_annotations`."""
    try:
        read_from = cache.signature(path)
    except OSError:
        return read_annotations(path, masks=masks)  # which says what is wrong
    [[size, _]] = read_from
    if size < KEPT_FROM_BYTES:
        return read_annotations(path, masks=masks)
    kind = "masks" if masks else "annotations"
    kept = cache.load(kind, [path], READER_VERSION)
    if kept is not None:
        return _from_arrays(path, kept)
    if size >= SLOW_FROM_BYTES:
        print(f"reading {path} ({size / 1e6:,.0f} MB); the next time it is known", file=sys.stderr, flush=True)
    annotations = read_annotations(path, masks=masks)
    cache.store(kind, [path], READER_VERSION, _to_arrays(annotations), read_from=read_from)
    return annotations


def _to_arrays(annotations: Annotations) -> dict[str, Any]:
    arrays = {name: getattr(annotations, name) for name in _ARRAYS}
    if annotations.masks is not None:
        arrays |= {"mask_codes": annotations.masks.codes, "mask_ends": annotations.masks.ends}
    # Repairs may be none, which an empty text in front keeps apart from one that is empty.
    return arrays | {name: cache.joined(["", *getattr(annotations, name)]) for name in _TEXTS}


def _from_arrays(path: Path, arrays: dict[str, Any]) -> Annotations:
    texts: dict[str, Any] = {name: cache.parted(arrays[name])[1:] for name in _TEXTS}
    masks = Masks(arrays["mask_codes"], arrays["mask_ends"]) if "mask_codes" in arrays else None
    return Annotations(path=path, **{name: arrays[name] for name in _ARRAYS}, masks=masks, **texts)
