"""Several views of each image at test time: at several sizes, mirrored or not; what is found in them is fused.

A view is one pass of the detector. Boxes come back to the pixels of the original image, and weighted box fusion
(`megdet.trained.fusion`) makes one set of those of all views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from megdet.data.annotations import Annotations
from megdet.data.batch import ImageBatch
from megdet.data.coco import CocoSplit
from megdet.data.eval_loader import EvalLoader
from megdet.data.reader import limits_of
from megdet.data.settings import MOST_PIXELS
from megdet.errors import UserError
from megdet.trained.fusion import fuse
from megdet.training.evaluate import Found, detect

if TYPE_CHECKING:
    from megdet.trained.run import TrainedRun

IMAGES_AT_A_TIME = 4
"""In one forward pass; what is found in an image does not depend on it."""

Advance = Callable[[int, int], None]
"""Called with images done and all images."""


@dataclass(frozen=True)
class View:
    """One way to look at an image."""

    min_size: int | None = None
    """Pixels of the shorter side, the longer one's limit in proportion; None: as the run was trained."""
    mirrored: bool = False


AS_TRAINED = (View(),)


def views_of(sizes: Sequence[int] = (), *, flip: bool = False) -> tuple[View, ...]:
    """Every size, as trained where there is none, and with `flip` each mirrored too. Raises UserError."""
    for size in sizes:
        if not 1 <= size <= MOST_PIXELS:
            raise UserError(f"size {size}: use from 1 to {MOST_PIXELS} pixels for an image's shorter side")
    if len(set(sizes)) < len(sizes):
        raise UserError(f"sizes {', '.join(map(str, sizes))}: name each once; an image counts once at a size")
    return tuple(
        View(size, mirrored) for size in sizes or (None,) for mirrored in ((False, True) if flip else (False,))
    )


def detections_in(
    run: TrainedRun,
    folder: Path,
    listed: Annotations,
    *,
    category_ids: Sequence[int],
    views: Sequence[View] = AS_TRAINED,
    advance: Advance | None = None,
) -> tuple[Found, dict[str, str]]:
    """What is detected in all images, as evaluation while training has it, and the files that could not be read.

    Rows have the entry of `category_ids` for the label as their category; there is none of an image that could not be
    read. Those of several views are fused, and have no masks: fusion moves boxes, and a mask is that of its box.
    Raises UserError where no image can be read.
    """
    total = len(views) * len(listed.image_ids)
    found: list[Found] = []
    bad: dict[str, str] = {}
    for number, view in enumerate(views):

        def count(done: int, images: int, before: int = number * len(listed.image_ids)) -> None:
            if advance:
                advance(before + done, total)

        of_view, bad = _found_in_view(run, folder, listed, category_ids, view, count)
        found.append(of_view)
    if len(views) == 1:
        return found[0], bad
    rows = [of_view.rows for of_view in found]
    return Found(fuse(rows, most=run.plan.config.eval.detections_per_image)), bad


def _found_in_view(
    run: TrainedRun, folder: Path, listed: Annotations, category_ids: Sequence[int], view: View, advance: Advance
) -> tuple[Found, dict[str, str]]:
    data, images = run.plan.config.data, len(listed.image_ids)
    [(min_size, max_size)] = limits_of(data.min_size, data.max_size, [(view.min_size or data.min_size) / data.min_size])
    loader = EvalLoader(
        CocoSplit(folder, listed),
        images_per_gpu=IMAGES_AT_A_TIME,
        rank=0,
        world_size=1,
        min_size=min_size,
        max_size=max_size,
        workers=data.workers,
        pin_memory=run.ranks.device.type == "cuda",
        max_bad_images=images,
        say_bad=False,
    )
    done = 0

    def counted() -> Iterator[ImageBatch]:
        nonlocal done
        for batch in loader:
            done += len(batch)
            yield mirrored(batch) if view.mirrored else batch

    found = detect(
        run.detector,
        counted(),
        category_ids=list(category_ids),
        device=run.ranks.device,
        bf16=run.bf16,
        on_batch=lambda: advance(done, images),
    )
    if len(loader.bad_images) == images:
        name, reason = next(iter(loader.bad_images.items()))
        raise UserError(f"none of the {images} images in {folder} can be read; {name}: {reason}")
    if view.mirrored:
        widths = dict(zip(listed.image_ids.tolist(), listed.sizes[:, 1].tolist(), strict=True))
        rows = found.rows
        rows[:, 1] = [widths[int(image)] for image in rows[:, 0]] - rows[:, 1] - rows[:, 3]
        found = Found(rows)
    bad = [image_id for name, image_id in zip(listed.file_names, listed.image_ids, strict=True)
           if name in loader.bad_images]  # fmt: skip
    return found.chosen(~np.isin(found.rows[:, 0], bad)), loader.bad_images


def mirrored(batch: ImageBatch) -> ImageBatch:
    """The same images, left and right exchanged within their own area."""
    images = batch.images.clone()
    for image, (_, width) in zip(images, batch.sizes, strict=True):
        image[:, :, :width] = image[:, :, :width].flip(2)
    return replace(batch, images=images)
