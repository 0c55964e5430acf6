"""What a COCO annotation file says of each annotation beside its box and its mask, checked or repaired."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotation_json import MISSING
from megdet.data.entries import MAX_ID, Entries, number, shown


def positions(annotations: Entries, key: str, ids: NDArray[np.int64], of: str) -> NDArray[np.int64]:
    """int64 [m]: where the ids that `annotations` refer to are in `ids`."""
    referred = annotations.whole_numbers(key, least=0, most=MAX_ID, way_out=f"{key} is the id of one of `{of}`")
    order = np.argsort(ids)
    places = order[np.minimum(np.searchsorted(ids, referred, sorter=order), len(ids) - 1)]
    unknown = np.flatnonzero(ids[places] != referred)
    if unknown.size:
        fault = f"has {key} {referred[unknown[0]]}, which is not in `{of}`"
        annotations.refuse(unknown, fault, f"Add it to `{of}`, or leave these annotations out.")
    return places


def crowds_in(annotations: Entries) -> NDArray[np.bool_]:
    """bool [m]: whether it is a region of many objects. Raises UserError."""
    values = annotations.column("iscrowd")
    if set(map(type, values)) <= {int} and set(values) <= {0, 1}:
        return np.array(values, dtype=np.bool_)
    crowds = annotations.read_each("iscrowd", _is_crowd, "iscrowd is 0 for an object, 1 for a region of many")
    missing = [index for index, value in enumerate(values) if value is MISSING or value is None]
    odd = [index for index, value in enumerate(values) if not (value is MISSING or value is None or type(value) is int)]
    annotations.repaired(missing, "annotations without iscrowd, read as objects")
    annotations.repaired(odd, "values of iscrowd not written as 0 or 1, read as such", values)
    return np.array(crowds, dtype=np.bool_)


def _is_crowd(value: Any) -> bool:
    if value is MISSING or value is None:
        return False
    if type(value) is str and value in ("0", "1"):
        return value == "1"
    if type(value) not in (bool, int, float) or value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def areas_in(annotations: Entries, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [m], pixels; the box's where none above 0 is given."""
    values = annotations.column("area")
    if set(map(type, values)) <= {float}:
        areas = np.array(values, dtype=np.float64)
        areas[~((areas > 0) & (areas < np.inf))] = np.nan
    else:
        areas = np.array([_area(value) for value in values], dtype=np.float64)
    absent = np.flatnonzero(np.isnan(areas))
    annotations.repaired(absent, "annotations without an area above 0, given that of their box", values)
    with np.errstate(over="ignore"):  # of boxes that are left out
        areas[absent] = boxes[absent, 2] * boxes[absent, 3]
    return areas


def _area(value: Any) -> float:
    """NaN where there is none: only the sizes small, medium and large go by it."""
    try:
        area = number(value)
    except ValueError:
        return np.nan
    return area if area > 0 else np.nan


def note_ids(annotations: Entries) -> None:
    """Annotation ids are not needed; those that other programs stumble over are mentioned."""
    ids = annotations.column("id")
    if set(map(type, ids)) <= {int} and len(set(ids)) == len(ids) and (not ids or 0 <= min(ids) <= max(ids) <= MAX_ID):
        return
    seen: set[str] = set()
    odd = []
    for index, own in enumerate(ids):
        text = "" if own is MISSING else shown(own)
        if type(own) is not int or not 0 <= own <= MAX_ID or text in seen:
            odd.append(index)
        seen.add(text)
    annotations.repaired(odd, "annotations without a whole number of their own as id, numbered anew")
