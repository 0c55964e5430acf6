"""What a trained detector finds in images: boxes by image, COCO's results format, pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from megdet.data.images import load_image
from megdet.data.masks import Masks
from megdet.data.size import Size
from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.trained.images import AskedImages
from megdet.trained.views import AS_TRAINED, Advance, View, detections_in
from megdet.training.drawing import MIN_SCORE, detections_drawn
from megdet.training.evaluate import Found

if TYPE_CHECKING:
    from megdet.trained.run import TrainedRun

DECIMALS = 2
"""Of a pixel, in COCO's results: enough for any IoU, and half the size of the file."""


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, best first."""

    file: Path
    name: str
    """Of the file, below the folder that was asked about."""
    image_id: int
    size: Size
    boxes: NDArray[np.float64]
    """[n, 4] as (x1, y1, x2, y2) in pixels of the image."""
    scores: NDArray[np.float64]
    """[n], 0 to 1."""
    labels: NDArray[np.int64]
    """[n], from 1 on: places in `classes`."""
    classes: Classes
    masks: Masks | None = None
    """Of the boxes, as large as the image; `masks.pixels(size)` has them as 0 and 1. None where the run has none."""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def class_names(self) -> list[str]:
        """Of each box."""
        return [self.classes.names[label - 1] for label in self.labels]

    def picture(self, *, min_score: float = MIN_SCORE) -> Image.Image:
        """The image with what was found in it, as far as the detector is that sure of it."""
        return detections_drawn(
            load_image(self.file, self.size).permute(1, 2, 0).numpy(),
            boxes=self.boxes,
            labels=self.labels.tolist(),
            scores=self.scores.tolist(),
            names=self.classes.names,
            masks=None if self.masks is None else self.masks.pixels(self.size),
            min_score=min_score,
        )

    def _repr_png_(self) -> bytes:
        """Notebooks show the picture."""
        content = io.BytesIO()
        self.picture().save(content, format="PNG")
        return content.getvalue()


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """What was found in some images, in their order."""

    images: tuple[Prediction, ...]
    unreadable: dict[str, str]
    """File name -> why nothing could be found in it."""

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Prediction, ...]: ...
    def __getitem__(self, place: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.images[place]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each box: `file`, `image_id`, `class`, `score`, `x1`, `y1`, `x2`, `y2`."""
        columns = ("file", "image_id", "class", "score", "x1", "y1", "x2", "y2")
        return pd.DataFrame(self._rows(), columns=columns)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for image in self.images:
            for name, score, box in zip(image.class_names, image.scores, image.boxes, strict=True):
                yield (str(image.file), image.image_id, name, float(score), *map(float, box))

    def to_coco(self) -> list[dict[str, Any]]:
        """COCO's results: `image_id`, `category_id`, `bbox` (x, y, width, height) and `score` of each box."""
        return [
            {
                "image_id": image.image_id,
                "category_id": image.classes.ids[label - 1],
                "bbox": [round(float(side), DECIMALS) for side in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 5),
            }
            for image in self.images
            for label, score, (x1, y1, x2, y2) in zip(image.labels, image.scores, image.boxes, strict=True)
        ]

    @property
    def have_masks(self) -> bool:
        """Whether there is a mask for each box."""
        return any(image.masks is not None for image in self.images)

    def masks_to_coco(self) -> list[dict[str, Any]]:
        """COCO's results of masks: `image_id`, `category_id`, `segmentation` (compressed RLE) and `score` of each."""
        return [
            {
                "image_id": image.image_id,
                "category_id": image.classes.ids[label - 1],
                "segmentation": {"size": list(image.size), "counts": image.masks.code(place).decode()},
                "score": round(float(score), 5),
            }
            for image in self.images
            if image.masks is not None
            for place, (label, score) in enumerate(zip(image.labels, image.scores, strict=True))
        ]

    def to_image_list(self) -> dict[str, Any]:
        """Which image has which id, as COCO lists its test images; who reads the results needs no other file."""
        first = self.images[0].classes if self.images else Classes((), ())
        images = [
            {"id": image.image_id, "file_name": image.name, "height": image.size[0], "width": image.size[1]}
            for image in self.images
        ]
        return {"images": images, **first.to_json()}


def detect_in(
    run: TrainedRun,
    asked: AskedImages,
    *,
    score: float | None = None,
    views: Sequence[View] = AS_TRAINED,
    advance: Advance | None = None,
) -> Predictions:
    """What the run's detector finds in images, in all `views` together. Raises UserError where none can be read."""
    if score is not None and not 0 <= score <= 1:
        raise UserError(f"score {score:g}: a score is between 0 and 1")
    listed, labels = asked.listed, list(range(1, len(run.classes.ids) + 1))
    found, unreadable = detections_in(run, asked.folder, listed, category_ids=labels, views=views, advance=advance)
    found = found.chosen(found.rows[:, 5] >= (score or 0.0))
    places, none = _by_image(found.rows), np.zeros(0, dtype=np.int64)
    images = tuple(
        _prediction(asked.folder / name, name, image_id, size, found.chosen(places.get(image_id, none)), run.classes)
        for name, image_id, size in zip(
            listed.file_names, listed.image_ids.tolist(), listed.sizes.tolist(), strict=True
        )
        if name not in unreadable
    )
    return Predictions(images, {**asked.unreadable, **unreadable})


def _by_image(rows: NDArray[np.float64]) -> dict[int, NDArray[np.int64]]:
    """Where each image's rows are, by its id; rows of one image are one after the other."""
    ids, first = np.unique(rows[:, 0], return_index=True)
    order = np.argsort(first)
    parts = np.split(np.arange(len(rows)), np.sort(first)[1:]) if len(ids) else []
    return {int(ids[place]): part for place, part in zip(order, parts, strict=True)}


def _prediction(
    file: Path, name: str, image_id: int, size: Sequence[int], found: Found, classes: Classes
) -> Prediction:
    rows = found.rows
    return Prediction(
        file=file,
        name=name,
        image_id=image_id,
        size=(size[0], size[1]),
        boxes=np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], axis=1),
        scores=rows[:, 5],
        labels=rows[:, 6].astype(np.int64),
        classes=classes,
        masks=found.masks,
    )
