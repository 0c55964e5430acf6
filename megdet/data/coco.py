"""The images and boxes of one split, for the loader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotations import Annotations, read_annotations
from megdet.data.masks import Masks
from megdet.data.size import Size


@dataclass(frozen=True, eq=False)
class MasksByImage:
    """The masks of a split's objects, to be handed to who makes pixels of them."""

    masks: Masks
    places: NDArray[np.int64]
    """Of the objects in `masks`, image by image."""
    first: NDArray[np.int64]
    """[n + 1]: where each image's begin in `places`."""

    def of(self, index: int) -> Masks:
        """Those of an image, in the order of its boxes."""
        return self.masks.chosen(self.places[self.first[index] : self.first[index + 1]])


class CocoSplit:
    """Images, in the file's order and with those that have no objects, and what there is to learn in them.

    Attributes: `annotations`; `image_ids`; `sizes`, (height, width) of each image; `file_names`; `category_ids`,
    ascending: label = position + 1; `category_names`.
    """

    def __init__(self, folder: Path | str, annotations: Annotations | Path | str) -> None:
        """`annotations` may be the path of a file; raises UserError if it is not what it should be."""
        self.folder = Path(folder)
        self.annotations = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
        self.image_ids: list[int] = self.annotations.image_ids.tolist()
        self.sizes: list[Size] = [(height, width) for height, width in self.annotations.sizes.tolist()]
        self.file_names = self.annotations.file_names
        self.category_ids: list[int] = self.annotations.category_ids.tolist()
        self.category_names = list(self.annotations.category_names)
        self._arrange_boxes()

    def __len__(self) -> int:
        return len(self.image_ids)

    def file(self, index: int) -> Path:
        return self.folder / self.file_names[index]

    def boxes(self, index: int) -> NDArray[np.float32]:
        """float32 [n, 4] as (x1, y1, x2, y2) in pixels, inside the image; crowd regions left out."""
        return self._boxes[self._first[index] : self._first[index + 1]]

    def labels(self, index: int) -> NDArray[np.int64]:
        """int64 [n], 1..number of categories."""
        return self._labels[self._first[index] : self._first[index + 1]]

    @property
    def masks(self) -> MasksByImage | None:
        """The masks of the objects that have boxes here; None where they were not read."""
        read = self.annotations.masks
        return None if read is None else MasksByImage(read, self._places, self._first)

    def _arrange_boxes(self) -> None:
        objects = ~self.annotations.crowds
        owner, boxes = self.annotations.owner[objects], self.annotations.boxes[objects]
        extent = self.annotations.sizes[owner][:, ::-1].astype(np.float64)
        corners = np.hstack([np.clip(boxes[:, :2], 0, extent), np.clip(boxes[:, :2] + boxes[:, 2:], 0, extent)])
        by_image = np.argsort(owner, kind="stable")
        self._boxes = corners[by_image].astype(np.float32)
        self._labels = self.annotations.labels[objects][by_image]
        self._places = np.flatnonzero(objects)[by_image]
        self._first = np.searchsorted(owner[by_image], np.arange(len(self) + 1))
