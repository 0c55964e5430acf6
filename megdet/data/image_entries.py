"""What a COCO annotation file says of its images and its categories, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet.data.entries import MAX_ID, Entries, shown
from megdet.errors import UserError

MAX_SIDE_PX = 1_000_000


def images_in(images: Entries) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int64]]:
    """Ids [n], file names, and heights and widths in pixels [n, 2]. Raises UserError."""
    if not len(images):
        raise UserError(f"{images.path} has no images")
    ids = images.whole_numbers("id", least=0, most=MAX_ID, way_out="Number the images with whole numbers up to 2^53")
    _refuse_repeated(images, "id", ids.tolist())
    names = _read_file_names(images)
    width, height = (
        images.whole_numbers(key, least=1, most=MAX_SIDE_PX, way_out="Give the image's width and height in pixels")
        for key in ("width", "height")
    )
    return ids, names, np.stack([height, width], axis=1)


def _read_file_names(images: Entries) -> tuple[str, ...]:
    way_out = "file_name is the path of the image below its folder (data.train.images and data.val.images, or --images)"
    written = images.column("file_name")
    names = images.read_each("file_name", _file_name, way_out)
    backslashes = [index for index, name in enumerate(written) if "\\" in name]
    images.repaired(backslashes, "file names with backslashes, read with slashes", written)
    _refuse_repeated(images, "file_name", names)
    return tuple(names)


def _file_name(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a text")
    parts = value.replace("\\", "/").split("/")
    if value.startswith(("/", "\\")):
        raise ValueError("not below the image folder")
    if ".." in parts:
        raise ValueError("it would leave the image folder")
    name = "/".join(part for part in parts if part not in ("", "."))
    if not name or "\0" in name:
        raise ValueError("not the name of a file")
    return name


def categories_in(categories: Entries) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Ids [k], ascending, and names. Raises UserError."""
    if not len(categories):
        raise UserError(f"{categories.path} has no categories")
    way_out = "Number the categories with whole numbers up to 2^53"
    ids = categories.whole_numbers("id", least=0, most=MAX_ID, way_out=way_out)
    _refuse_repeated(categories, "id", ids.tolist())
    names = categories.read_each("name", _category_name, "Give every category a name of its own")
    _refuse_repeated(categories, "name", names)
    order = np.argsort(ids)
    return ids[order], tuple(names[place] for place in order)


def _category_name(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str or not value.strip():
        raise ValueError("not a name")
    return value


def _refuse_repeated(entries: Entries, key: str, values: list[Any]) -> None:
    if len(set(values)) == len(values):
        return
    first: dict[Any, int] = {}
    repeated = [index for index, value in enumerate(values) if first.setdefault(value, index) != index]
    value = values[repeated[0]]
    fault = f"has the {key} {shown(value)} of {entries.name}[{first[value]}]"
    entries.refuse(repeated, fault, f"Each of `{entries.name}` needs {'an' if key == 'id' else 'a'} {key} of its own.")
