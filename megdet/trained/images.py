"""The images that a detector is asked about: files as they are, with sizes of their own, or those that a file lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from megdet.data.annotations import Annotations, of_images_alone, read_images
from megdet.data.image_header import FORMATS, UnreadableImage, upright_size
from megdet.errors import UserError

SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
"""Of files that are taken for images where a folder is given."""


@dataclass(frozen=True)
class AskedImages:
    """Images with their sizes and ids, and what could not be read of them."""

    folder: Path
    """Where the file names start."""
    listed: Annotations
    """Without annotations and classes."""
    unreadable: dict[str, str]
    """File name -> reason, of those that are not listed."""


def images_at(places: Path | str | Iterable[Path | str]) -> AskedImages:
    """The image files of a folder (and of folders in it), or files; an image's id is `ids_of` their names.

    Raises UserError where there is none, or none that can be read.
    """
    folder, names = _files_at(places)
    sizes, unreadable = {}, {}
    for name in names:
        try:
            sizes[name] = upright_size(folder / name)
        except UnreadableImage as error:
            unreadable[name] = str(error)
    if not sizes:
        first = next(iter(unreadable))
        raise UserError(
            f"none of the {len(unreadable)} images can be read; the first is {folder / first}: {unreadable[first]}"
        )
    ids = ids_of(names)
    listed = of_images_alone(
        folder, np.array([ids[name] for name in sizes]), tuple(sizes), np.array(list(sizes.values()), dtype=np.int64)
    )
    return AskedImages(folder, listed, unreadable)


def images_listed(folder: Path, annotations: Path) -> AskedImages:
    """The images that a file lists as COCO's do, whether or not it has annotations. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; the file names of {annotations} start from one")
    return AskedImages(folder, read_images(annotations), {})


def ids_of(names: Sequence[str]) -> dict[str, int]:
    """The number that a file's name is, as COCO's are (000000000139.jpg); where one is none, 1, 2, 3, ..."""
    stems = [Path(name).stem for name in names]
    if all(stem.isascii() and stem.isdecimal() and len(stem) <= 15 for stem in stems):
        numbers = list(map(int, stems))
        if len(set(numbers)) == len(numbers):
            return dict(zip(names, numbers, strict=True))
    return {name: number for number, name in enumerate(names, start=1)}


def _files_at(places: Path | str | Iterable[Path | str]) -> tuple[Path, list[str]]:
    if isinstance(places, Path | str):
        place = Path(places)
        if place.is_dir():
            names = sorted(
                file.relative_to(place).as_posix()
                for file in place.rglob("*")
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
            if not names:
                raise UserError(f"{place} has no images (files that end in .jpg, .png and the like)")
            return place, names
        return place.parent, [place.name]
    names = list(dict.fromkeys(str(place) for place in places))
    if not names:
        raise UserError("there are no images to look at")
    return Path(), names
