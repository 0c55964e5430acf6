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

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotation_entries import areas_in, crowds_in, note_ids, positions
from megdet.data.annotation_json import read_image_list, read_lists
from megdet.data.boxes import fit_boxes, read_boxes
from megdet.data.entries import Entries
from megdet.data.image_entries import categories_in, images_in
from megdet.data.masks import Masks
from megdet.data.segmentations import read_segmentations

READER_VERSION = 1
"""To be raised when a file may be read otherwise than before: what was kept of files is then read again."""


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
        ids, names, sizes = images_in(Entries(path, "images", read_image_list(path)))
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
    image_ids, file_names, sizes = images_in(images)
    category_ids, category_names = categories_in(categories)
    owner = positions(annotations, "image_id", image_ids, "images")
    labels = positions(annotations, "category_id", category_ids, "categories") + 1
    crowds = crowds_in(annotations)
    boxes, kept = fit_boxes(annotations, read_boxes(annotations), sizes[owner])
    areas = areas_in(annotations, boxes)
    drawn = read_segmentations(annotations, sizes[owner]) if masks else None
    note_ids(annotations)
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
