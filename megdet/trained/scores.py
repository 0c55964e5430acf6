"""COCO's numbers of a trained detector on any annotated images: in all, by class and by size of object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from megdet.data.annotation_cache import load_annotations
from megdet.data.annotations import Annotations
from megdet.data.segmentations import NoMasks
from megdet.errors import UserError
from megdet.runs.classes import Classes
from megdet.settings.counted import listed
from megdet.trained.views import AS_TRAINED, Advance, View, detections_in
from megdet.training.evaluate import Found
from megdet.training.metrics import coco_metrics, coco_metrics_by_class

if TYPE_CHECKING:
    from megdet.trained.run import TrainedRun

NOT_THERE = -1
"""Stands for the id of a class that an annotation file does not list; ids are never negative."""


@dataclass(frozen=True)
class Scores:
    """In percent; None where there is nothing to measure."""

    run: str
    annotations: str
    images: int
    metrics: dict[str, float | None]
    """COCO's 12 numbers of boxes, and where there are masks those of masks (`mask_mmAP`, ...)."""
    by_class: dict[str, dict[str, float | None]]
    """By class name: mmAP, AP50, AP75, and AP and AR by size of object, of masks too."""
    unreadable: dict[str, str]
    """File name -> why it could not be read; such an image counts, as one in which nothing was found."""

    @property
    def frame(self) -> pd.DataFrame:
        """`by_class` with a row for each class."""
        return pd.DataFrame.from_dict(self.by_class, orient="index").astype(float).rename_axis("class")

    def to_json(self) -> dict[str, Any]:
        """As `megdet eval --json` prints it."""
        return {
            "run": self.run,
            "annotations": self.annotations,
            "images": self.images,
            "metrics": self.metrics,
            "by_class": self.by_class,
            "unreadable": self.unreadable,
        }


def score_on(
    run: TrainedRun,
    file: Path,
    images: Path,
    *,
    views: Sequence[View] = AS_TRAINED,
    advance: Advance | None = None,
) -> Scores:
    """COCO's numbers of the run's detector. Raises UserError as `TrainedRun.evaluate` does."""
    annotations = annotations_at(file, images, masks=run.has_masks)
    found, unreadable = found_for(run, annotations, images, views=views, advance=advance)
    return scores_of(run.name, annotations, found, unreadable)


def annotations_at(file: Path, images: Path, *, masks: bool = False) -> Annotations:
    """What a file says of the images in a folder, with `masks` of their masks too, where it has any.

    Raises UserError where either is not what it should be.
    """
    try:
        annotations = load_annotations(file, masks=masks)
    except NoMasks:
        annotations = load_annotations(file)
    if not images.is_dir():
        raise UserError(f"{images} is no folder; the file names of {file} start from one")
    return annotations


def found_for(
    run: TrainedRun,
    annotations: Annotations,
    images: Path,
    *,
    views: Sequence[View] = AS_TRAINED,
    advance: Advance | None = None,
) -> tuple[Found, dict[str, str]]:
    """What the run finds of the classes that are annotated, as `detections_in` has it, under the file's ids."""
    ids = _ids_in_the_file(run.classes, annotations)
    found, unreadable = detections_in(run, images, annotations, category_ids=ids, views=views, advance=advance)
    return found.chosen(found.rows[:, 6] != NOT_THERE), unreadable


def scores_of(name: str, annotations: Annotations, found: Found, unreadable: dict[str, str]) -> Scores:
    """COCO's numbers, those of masks where both `found` and `annotations` have them."""
    masks = found.masks if annotations.masks is not None else None
    return Scores(
        run=name,
        annotations=str(annotations.path),
        images=len(annotations.image_ids),
        metrics=coco_metrics(annotations, found.rows, masks),
        by_class=coco_metrics_by_class(annotations, found.rows, masks),
        unreadable=unreadable,
    )


def _ids_in_the_file(classes: Classes, annotations: Annotations) -> list[int]:
    """For each of the detector's classes the id that the file has for its name, or NOT_THERE.

    Raises UserError where the file has a class that the detector does not know: it could only score 0 there.
    """
    ids = dict(zip(annotations.category_names, annotations.category_ids.tolist(), strict=True))
    unknown = [name for name in ids if name not in classes.names]
    if unknown:
        raise UserError(
            f"{annotations.path} has classes that this run was not trained for: {listed(unknown, 5)}; it "
            f"knows {', '.join(classes.names[:10])}{', ...' * (len(classes.names) > 10)}. Leave their annotations and "
            "categories out of the file, or rename its categories to what the run calls them"
        )
    return [ids.get(name, NOT_THERE) for name in classes.names]
