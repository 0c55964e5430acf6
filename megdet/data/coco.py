"""A COCO annotation file as compact arrays."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet.data.batch import Size
from megdet.errors import UserError

MIN_SIDE_PX = 0.01
"""Thinner boxes are dropped: their log-encoded regression targets have no meaning."""


class CocoSplit:
    """The images and boxes of one annotation file, in the file's order; images without objects included.

    Attributes: `image_ids`; `sizes`, (height, width) of each image; `file_names`; `category_ids`, ascending:
    label = position + 1; `category_names`; `dropped_boxes`, how many were empty or outside their image.
    Raises UserError if the file is not what it should be, if it has not `expect_images` images (the
    setting named `images_setting` says how many) or not `expect_classes` categories.
    """

    def __init__(
        self,
        images: Path | str,
        annotations: Path | str,
        *,
        expect_images: int | None = None,
        images_setting: str = "data.train_images",
        expect_classes: int | None = None,
    ) -> None:
        self.folder = Path(images)
        self.annotations = Path(annotations)
        content = _read(self.annotations)
        try:
            self._read_images(content["images"])
            self._read_categories(content["categories"])
            self._read_boxes(content["annotations"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"no {error} where COCO has one" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{self.annotations} is not a COCO instances file: {what}") from error
        if expect_images is not None and expect_images != len(self):
            raise UserError(
                f"{images_setting}={expect_images}, but {self.annotations} has {len(self)} images; "
                f"set {images_setting}={len(self)} (it decides how many steps an epoch has)"
            )
        if expect_classes is not None and expect_classes != len(self.category_ids):
            raise UserError(
                f"data.num_classes={expect_classes}, but {self.annotations} has {len(self.category_ids)} "
                f"categories; set data.num_classes={len(self.category_ids)}"
            )

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

    def _read_images(self, images: list[dict[str, Any]]) -> None:
        self.image_ids: list[int] = [int(image["id"]) for image in images]
        self.file_names: list[str] = [str(image["file_name"]) for image in images]
        self.sizes: list[Size] = [(int(image["height"]), int(image["width"])) for image in images]
        if len(set(self.image_ids)) < len(images):
            raise ValueError("two images have the same id")
        if any(min(size) < 1 for size in self.sizes):
            raise ValueError("an image has no width or height")

    def _read_categories(self, categories: list[dict[str, Any]]) -> None:
        names = {int(category["id"]): str(category["name"]) for category in categories}
        self.category_ids: list[int] = sorted(names)
        self.category_names: list[str] = [names[category_id] for category_id in self.category_ids]

    def _read_boxes(self, annotations: list[dict[str, Any]]) -> None:
        objects = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
        position = {image_id: index for index, image_id in enumerate(self.image_ids)}
        label_of = {category_id: label for label, category_id in enumerate(self.category_ids, start=1)}
        owner = np.array([position.get(a["image_id"], -1) for a in objects], dtype=np.int64)
        labels = np.array([label_of.get(a["category_id"], -1) for a in objects], dtype=np.int64)
        xywh = np.array([a["bbox"] for a in objects], dtype=np.float64).reshape(len(objects), 4)
        for values, key, of in ((owner, "image_id", "images"), (labels, "category_id", "categories")):
            if (values < 0).any():
                bad = objects[int(np.argmin(values))]
                raise ValueError(f"annotation {bad.get('id')} has {key} {bad[key]}, which is not in `{of}`")
        if not np.isfinite(xywh).all():
            raise ValueError("a bbox has a value that is not a finite number")

        width_height = np.array(self.sizes, dtype=np.float64).reshape(-1, 2)[owner][:, ::-1]
        top_left = np.clip(xywh[:, :2], 0, width_height)
        bottom_right = np.clip(xywh[:, :2] + xywh[:, 2:], 0, width_height)
        kept = (bottom_right - top_left >= MIN_SIDE_PX).all(axis=1)
        self.dropped_boxes = int(len(objects) - kept.sum())
        owner = owner[kept]
        by_image = np.argsort(owner, kind="stable")
        self._boxes = np.hstack([top_left, bottom_right])[kept][by_image].astype(np.float32)
        self._labels = labels[kept][by_image]
        self._first = np.searchsorted(owner[by_image], np.arange(len(self) + 1))


# Polygons or run lengths: nine tenths of the numbers in the file, and none that boxes need. In valid JSON an
# unescaped `"segmentation":` is always a key, and its value has no nested braces.
_SEGMENTATION = re.compile(rb'"segmentation"\s*:\s*(?:\[[][0-9\s.,eE+-]*\]|\{[^{}]*\})')


def _read(path: Path) -> dict[str, Any]:
    # COCO's file becomes millions of small objects; without the collector walking them it reads much faster.
    collecting = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(_SEGMENTATION.sub(b'"segmentation":0', path.read_bytes()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check data.root") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch or generate it again") from error
    finally:
        if collecting:
            gc.enable()
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a COCO instances file: it holds no object at the top")
    return content
