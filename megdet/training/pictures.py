"""Pictures of a run: what it was trained on (Figure 2 of the paper), and what it found in the end (Figure 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from megdet.data.batch import ImageBatch
from megdet.data.coco import CocoSplit
from megdet.data.image_header import UnreadableImage
from megdet.data.images import load_image
from megdet.model.detector import Detector
from megdet.model.output import SampledRegions, TrainingOutput
from megdet.runs.files import forget_unfinished
from megdet.runs.folder import RunFolder
from megdet.training.drawing import detections_drawn, draw_proposals, save_picture
from megdet.training.evaluate import Found

PICTURES = 6
"""Of validation images."""
EXTREMES = 2
"""Training images of a pass with the fewest and with the most positive proposals."""


class LastPass:
    """Keeps the latest forward pass of training on this rank: the images and the proposals sampled in them."""

    def __init__(self, detector: Detector) -> None:
        self.batch: ImageBatch | None = None
        self.regions: SampledRegions | None = None
        detector.register_forward_hook(self._see)

    def _see(self, detector: Detector, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, TrainingOutput):
            (self.batch,), self.regions = inputs, output.regions


def draw_proposals_of(last: LastPass, folder: RunFolder, *, epoch: int) -> None:
    """Draw images of the latest training pass with their proposals into the folder's pictures; nothing before a pass.

    These are the images with the smallest and the largest share of positives: the paper's imbalanced and balanced.
    """
    if last.batch is None or last.regions is None:
        return  # an attempt that resumes at the end of an epoch
    boxes = last.regions.boxes.float().cpu().numpy()
    image_of, positive = last.regions.image.cpu().numpy(), last.regions.positive.cpu().numpy()
    shares = [positive[image_of == place].sum() / max(1, (image_of == place).sum()) for place in range(len(last.batch))]
    order = np.argsort(shares, kind="stable")
    for place in sorted({*order[:EXTREMES], *order[-EXTREMES:]}):
        height, width = last.batch.sizes[place]
        own = image_of == place
        path = folder.pictures / f"proposals-epoch{epoch:02}-{last.batch.image_ids[place]:012}.png"
        forget_unfinished(path)
        draw_proposals(
            last.batch.images[place, :, :height, :width].permute(1, 2, 0).cpu().numpy(),
            path,
            positive=boxes[own & positive],
            negative=boxes[own & ~positive],
        )


def draw_detections_of(found: Found, folder: RunFolder, split: CocoSplit) -> None:
    """Draw the split's first images that have objects, with their detections, into the folder's pictures.

    `found` is of the whole split. The images are the same for every run of a data set.
    """
    label_of = {category_id: label for label, category_id in enumerate(split.category_ids, start=1)}
    with_objects = [index for index in range(len(split)) if len(split.labels(index))]
    for index in with_objects[:PICTURES]:
        file = split.file(index)
        try:
            image = load_image(file, split.sizes[index])
        except UnreadableImage:
            continue
        own = found.chosen(found.rows[:, 0] == split.image_ids[index])
        picture = detections_drawn(
            image.permute(1, 2, 0).numpy(),
            boxes=np.concatenate([own.rows[:, 1:3], own.rows[:, 1:3] + own.rows[:, 3:5]], axis=1),
            labels=[label_of[int(category_id)] for category_id in own.rows[:, 6]],
            scores=own.rows[:, 5].tolist(),
            masks=None if own.masks is None else own.masks.pixels(split.sizes[index]),
            names=split.category_names,
            truth_boxes=split.boxes(index),
            truth_labels=split.labels(index).tolist(),
        )
        path = folder.pictures / f"detections-{int(split.image_ids[index]):012d}.png"
        forget_unfinished(path)
        save_picture(picture, path)
