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
from megdet.data.size import Size
from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.trained.images import AskedImages
from megdet.trained.views import AS_TRAINED, Advance, View, detected_rows
from megdet.training.drawing import MIN_SCORE, detections_drawn

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
    rows, unreadable = detected_rows(run, asked.folder, listed, category_ids=labels, views=views, advance=advance)
    rows = rows[rows[:, 5] >= (score or 0.0)]
    by_image = _by_image(rows)
    images = tuple(
        _prediction(asked.folder / name, name, image_id, size, by_image.get(image_id, rows[:0]), run.classes)
        for name, image_id, size in zip(
            listed.file_names, listed.image_ids.tolist(), listed.sizes.tolist(), strict=True
        )
        if name not in unreadable
    )
    return Predictions(images, {**asked.unreadable, **unreadable})


def _by_image(rows: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
    """Rows of one image are one after the other."""
    ids, first = np.unique(rows[:, 0], return_index=True)
    order = np.argsort(first)
    parts = np.split(rows, np.sort(first)[1:]) if len(ids) else []
    return {int(ids[place]): part for place, part in zip(order, parts, strict=True)}


def _prediction(
    file: Path, name: str, image_id: int, size: Sequence[int], rows: NDArray[np.float64], classes: Classes
) -> Prediction:
    return Prediction(
        file=file,
        name=name,
        image_id=image_id,
        size=(size[0], size[1]),
        boxes=np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], axis=1),
        scores=rows[:, 5],
        labels=rows[:, 6].astype(np.int64),
        classes=classes,
    )
