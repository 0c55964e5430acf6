"""A COCO annotation file as compact arrays: the one reader, for planning, training and evaluation alike.

What boxes need is checked strictly; what has one meaning only is repaired and said; the rest raises UserError with the
file, the entry and how many more there are. What boxes do not need (info, licences, segmentation, keypoints,
annotation ids) decides nothing, except that segmentations are read and checked where masks are asked for.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotation_json import MISSING, read_image_list, read_lists
from megdet.data.boxes import fit_boxes, read_boxes
from megdet.data.entries import MAX_ID, Entries, number, shown
from megdet.data.masks import Masks
from megdet.data.segmentations import read_segmentations
from megdet.errors import UserError

READER_VERSION = 1
"""To be raised when a file may be read otherwise than before: what was kept of files is then read again."""
MAX_SIDE_PX = 1_000_000


@dataclass(frozen=True, eq=False)
class Annotations:
    """n images, k categories and m boxes (crowd regions included), in the file's order."""

    path: Path
    image_ids: NDArray[np.int64]
    """[n], each once, 0..2^53."""
    file_names: tuple[str, ...]
    """n paths below the image folder, each once, with `/`."""
    sizes: NDArray[np.int64]
    """[n, 2]: height and width in pixels."""
    category_ids: NDArray[np.int64]
    """[k], ascending: label = position + 1."""
    category_names: tuple[str, ...]
    owner: NDArray[np.int64]
    """[m]: position of each box's image."""
    labels: NDArray[np.int64]
    """[m], 1..k."""
    boxes: NDArray[np.float64]
    """[m, 4]: x, y, width, height in pixels. Cut to the image where more than a pixel stuck out; none is empty."""
    areas: NDArray[np.float64]
    """[m], pixels; of the object where the file says, else of the box. Small, medium and large go by it."""
    crowds: NDArray[np.bool_]
    """[m]: regions of many objects, left out of training and ignored in evaluation."""
    masks: Masks | None = None
    """Of the boxes, each as large as its image; None where they were not asked for."""
    repairs: tuple[str, ...] = ()
    """What was read otherwise than it is written, a sentence each."""

    def of_images(self, chosen: NDArray[np.bool_]) -> Annotations:
        """These images alone, with their boxes."""
        boxes = chosen[self.owner]
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            file_names=tuple(name for name, is_chosen in zip(self.file_names, chosen, strict=True) if is_chosen),
            sizes=self.sizes[chosen],
            owner=(np.cumsum(chosen) - 1)[self.owner[boxes]],
            labels=self.labels[boxes],
            boxes=self.boxes[boxes],
            areas=self.areas[boxes],
            crowds=self.crowds[boxes],
            masks=None if self.masks is None else self.masks.chosen(boxes),
        )

    def with_categories(self, ids: NDArray[np.int64], names: tuple[str, ...]) -> Annotations:
        """The same, labelled by other categories that include this file's."""
        labels = np.searchsorted(ids, self.category_ids[self.labels - 1]) + 1
        return replace(self, category_ids=ids, category_names=names, labels=labels)


def read_annotations(path: Path | str, *, masks: bool = False) -> Annotations:
    """Read and check a file, with `masks` its segmentations too.

    Raises UserError, or `NoMasks`, where masks are asked for and no annotation has one.
    """
    with _without_collector():
        return _read(Path(path), masks=masks)


def read_images(path: Path | str) -> Annotations:
    """The images of a file that may have neither annotations nor categories, without them. Raises UserError."""
    path = Path(path)
    with _without_collector():
        ids, names, sizes = _read_images(Entries(path, "images", read_image_list(path)))
    return of_images_alone(path, ids, names, sizes)


def of_images_alone(
    path: Path, image_ids: NDArray[np.int64], file_names: tuple[str, ...], sizes: NDArray[np.int64]
) -> Annotations:
    """Images without annotations and classes."""
    nothing = np.zeros(0, dtype=np.int64)
    return Annotations(
        path=path,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        category_ids=nothing,
        category_names=(),
        owner=nothing,
        labels=nothing,
        boxes=np.zeros((0, 4)),
        areas=np.zeros(0),
        crowds=np.zeros(0, dtype=np.bool_),
    )


@contextmanager
def _without_collector() -> Iterator[None]:
    """COCO's file becomes millions of small objects; without the collector walking them it reads twice as fast."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _read(path: Path, *, masks: bool) -> Annotations:
    lists = read_lists(path, masks=masks)
    images = Entries(path, "images", lists.images)
    categories = Entries(path, "categories", lists.categories)
    annotations = Entries(path, "annotations", lists.annotations)
    image_ids, file_names, sizes = _read_images(images)
    category_ids, category_names = _read_categories(categories)
    owner = _positions(annotations, "image_id", image_ids, "images")
    labels = _positions(annotations, "category_id", category_ids, "categories") + 1
    crowds = _read_crowds(annotations)
    boxes, kept = fit_boxes(annotations, read_boxes(annotations), sizes[owner])
    areas = _read_areas(annotations, boxes)
    drawn = read_segmentations(annotations, sizes[owner]) if masks else None
    _note_ids(annotations)
    return Annotations(
        path=path,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        category_ids=category_ids,
        category_names=category_names,
        owner=owner[kept],
        labels=labels[kept],
        boxes=boxes[kept],
        areas=areas[kept],
        crowds=crowds[kept],
        masks=None if drawn is None else drawn.chosen(kept),
        repairs=(*images.repairs, *categories.repairs, *annotations.repairs),
    )


def _read_images(images: Entries) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int64]]:
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
    way_out = "file_name is the path of the image below its folder (data.train.images, data.val.images)"
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


def _read_categories(categories: Entries) -> tuple[NDArray[np.int64], tuple[str, ...]]:
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
    entries.refuse(repeated, fault, f"Each of `{entries.name}` needs a {key} of its own.")


def _positions(annotations: Entries, key: str, ids: NDArray[np.int64], of: str) -> NDArray[np.int64]:
    """int64 [m]: where the ids that `annotations` refer to are in `ids`."""
    referred = annotations.whole_numbers(key, least=0, most=MAX_ID, way_out=f"{key} is the id of one of `{of}`")
    order = np.argsort(ids)
    places = order[np.minimum(np.searchsorted(ids, referred, sorter=order), len(ids) - 1)]
    unknown = np.flatnonzero(ids[places] != referred)
    if unknown.size:
        fault = f"has {key} {referred[unknown[0]]}, which is not in `{of}`"
        annotations.refuse(unknown, fault, f"Add it to `{of}`, or leave these annotations out.")
    return places


def _read_crowds(annotations: Entries) -> NDArray[np.bool_]:
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


def _read_areas(annotations: Entries, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
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


def _note_ids(annotations: Entries) -> None:
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
