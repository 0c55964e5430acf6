"""Pictures of a finished run: a few validation images with what was found in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet.data.coco import CocoSplit
from megdet.data.images import UnreadableImage, load_image
from megdet.tracking.pictures import draw_detections

PICTURES = 6


def draw_sample(folder: Path, split: CocoSplit, rows: NDArray[np.float64]) -> None:
    """Draw the split's first images that have objects, with their detections, into `folder`/pictures.

    `rows` are COCO rows, float64 [n, 7], of the whole split. The images are the same for every run of a data set.
    """
    label_of = {category_id: label for label, category_id in enumerate(split.category_ids, start=1)}
    with_objects = [index for index in range(len(split)) if len(split.labels(index))]
    for index in with_objects[:PICTURES]:
        file = split.file(index)
        try:
            image = load_image(file, split.sizes[index])
        except UnreadableImage:
            continue
        found = rows[rows[:, 0] == split.image_ids[index]]
        draw_detections(
            image.permute(1, 2, 0).numpy(),
            folder / "pictures" / f"{file.stem}.png",
            boxes=np.concatenate([found[:, 1:3], found[:, 1:3] + found[:, 3:5]], axis=1),
            labels=[label_of[int(category_id)] for category_id in found[:, 6]],
            scores=found[:, 5].tolist(),
            names=split.category_names,
            truth_boxes=split.boxes(index),
            truth_labels=split.labels(index).tolist(),
        )
