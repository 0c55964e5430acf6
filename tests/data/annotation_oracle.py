"""What an annotation file means, worked out entry by entry with the standard library: slow, and written apart from the
reader, from its rules alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

LARGEST_ID = 2**53
LARGEST_SIDE = 1_000_000


class Refused(Exception):
    """The file has no meaning that one could be sure of."""


@dataclass
class Meaning:
    images: list[tuple[int, str, int, int]]
    """Id, file name, width, height."""
    categories: dict[int, str]
    boxes: list[tuple[int, int, tuple[float, float, float, float], float, bool]]
    """Image id, category id, (x, y, width, height), area, crowd."""
    is_repaired: bool
    """Whether the reader has to say that it read something otherwise than it is written."""


class _Notes:
    repaired = False


def meaning_of(content: bytes) -> Meaning:
    """Raises Refused."""
    top = _parsed(content)
    if not isinstance(top, dict):
        raise Refused("no object at the top")
    lists = {}
    for name in ("images", "categories", "annotations"):
        lists[name] = top.get(name)
        if not isinstance(lists[name], list) or not all(isinstance(entry, dict) for entry in lists[name]):
            raise Refused(f"{name} is no list of objects")
    notes = _Notes()
    images = [_image(entry, notes) for entry in lists["images"]]
    _need(images and len({i for i, *_ in images}) == len(images) == len({name for _, name, *_ in images}))
    categories = [_category(entry, notes) for entry in lists["categories"]]
    _need(categories and len(dict(categories)) == len(categories) == len({name for _, name in categories}))
    sizes = {image_id: (width, height) for image_id, _, width, height in images}
    rows = [_annotation(entry, sizes, dict(categories), notes) for entry in lists["annotations"]]

    kept, altered = [], 0
    for image_id, category_id, box, area, crowd in rows:
        fitted, changed = _fit(box, *sizes[image_id])
        altered += changed
        if fitted is not None:
            area = fitted[2] * fitted[3] if area is None else area
            kept.append((image_id, category_id, fitted, area, crowd))
    _need(not altered or (kept and altered <= max(5, 0.1 * len(rows))))
    _need(not kept or any(x + w > 1 or y + h > 1 for _, _, (x, y, w, h), _, _ in kept))
    return Meaning(images, dict(categories), kept, notes.repaired or altered > 0 or _has_odd_ids(lists["annotations"]))


def _need(is_so: object) -> None:
    if not is_so:
        raise Refused


class _Repeated(dict[str, Any]):
    """An object in which a key stands twice."""


def _parsed(content: bytes) -> Any:
    def constant(_: str) -> None:
        raise ValueError

    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = any(keys.count(name) > 1 for name in ("images", "categories", "annotations"))
        return (_Repeated if twice else dict)(pairs)

    try:
        top = json.loads(content.decode("utf-8"), parse_constant=constant, object_pairs_hook=as_dict)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    _need(not isinstance(top, _Repeated))
    return top


def _image(entry: dict[str, Any], notes: _Notes) -> tuple[int, str, int, int]:
    name = entry.get("file_name")
    _need(isinstance(name, str))
    notes.repaired |= "\\" in name
    name = name.replace("\\", "/")
    parts = name.split("/")
    _need(not name.startswith("/") and ".." not in parts and "\0" not in name)
    name = "/".join(part for part in parts if part not in (".", ""))
    _need(name)
    image_id = _whole(entry, "id", 0, LARGEST_ID, notes)
    width, height = (_whole(entry, side, 1, LARGEST_SIDE, notes) for side in ("width", "height"))
    return image_id, name, width, height


def _category(entry: dict[str, Any], notes: _Notes) -> tuple[int, str]:
    name = entry.get("name")
    if type(name) is int:
        name = str(name)
    _need(isinstance(name, str) and name.strip())
    return _whole(entry, "id", 0, LARGEST_ID, notes), name


def _annotation(
    entry: dict[str, Any], sizes: dict[int, tuple[int, int]], categories: dict[int, str], notes: _Notes
) -> tuple[int, int, tuple[float, ...], float | None, bool]:
    image_id = _whole(entry, "image_id", 0, LARGEST_ID, notes)
    category_id = _whole(entry, "category_id", 0, LARGEST_ID, notes)
    _need(image_id in sizes and category_id in categories)
    box = entry.get("bbox")
    _need(isinstance(box, list) and len(box) == 4)
    notes.repaired |= any(isinstance(side, str) for side in box)
    x, y, w, h = (_number(side) for side in box)
    _need(w > -0.01 and h > -0.01)

    flag = entry.get("iscrowd")
    notes.repaired |= type(flag) is not int
    if flag is None:
        flag = 0
    elif flag in ("0", "1"):
        flag = int(flag)
    _need(isinstance(flag, bool | int | float) and flag in (0, 1))

    try:
        area: float | None = _number(entry.get("area"))
    except Refused:
        area = None
    if area is not None and area <= 0:
        area = None
    notes.repaired |= area is None
    # Numbers that no float64 can hold are refused wherever they are looked at.
    for key in ("id", "area"):
        _need(not (isinstance(entry.get(key), float) and math.isinf(entry[key])))
    return image_id, category_id, (x, y, w, h), area, bool(flag)


def _whole(entry: dict[str, Any], key: str, least: int, most: int, notes: _Notes) -> int:
    value = entry.get(key)
    notes.repaired |= type(value) is not int
    if isinstance(value, str):
        _need(value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() and len(value) <= 20)
        _need(str(int(value)) == value)
        value = int(value)
    _need(isinstance(value, int | float) and not isinstance(value, bool))
    _need(math.isfinite(value) and value == int(value) and least <= value <= most)
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, str):
        _need(value.strip() == value and "_" not in value and "+" not in value.lower().split("e")[0])
        _need(value.isascii() and any(c.isdigit() for c in value[:2]) and not value.startswith("."))
        _need("." not in value or value.lower().split("e")[0].split(".")[1][:1].isdigit())
        try:
            value = float(Decimal(value))
        except InvalidOperation as error:
            raise Refused from error
    _need(isinstance(value, int | float) and not isinstance(value, bool))
    try:
        value = float(value)
    except OverflowError as error:
        raise Refused from error
    _need(math.isfinite(value))
    return value


def _fit(box: tuple[float, ...], width: int, height: int) -> tuple[tuple[float, ...] | None, bool]:
    """The box as it is used, None where it is empty; and whether that is another than the one written."""
    x, y, w, h = box
    left, top = min(max(x, 0.0), width), min(max(y, 0.0), height)
    right, bottom = min(max(x + w, 0.0), width), min(max(y + h, 0.0), height)
    if right - left < 0.01 or bottom - top < 0.01:
        return None, True
    if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
        return (left, top, right - left, bottom - top), True
    return box, False


def _has_odd_ids(annotations: list[dict[str, Any]]) -> bool:
    ids = [entry.get("id") for entry in annotations]
    return any(type(i) is not int or not 0 <= i <= LARGEST_ID for i in ids) or len(set(ids)) < len(ids)
