"""The training loader: one rank's share of every step.

An image is always padded to the size of its padding group (one BN batch, or several small ones:
`sampler.padding_group`), which the annotation file alone decides. So what the detector sees of an image does not depend
on how many ranks, passes or workers there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megdet.data.bad_images import record_bad
from megdet.data.batch import ImageBatch, TrainingStep
from megdet.data.coco import CocoSplit
from megdet.data.reader import Limits, PixelReader, Request, Workers, common_size, limits_of, resized_sizes
from megdet.data.sampler import drawn_scale, epoch_order, is_flipped, padding_group, sampling_key
from megdet.data.size import Size
from megdet.errors import UserError


class TrainLoader:
    """One rank's share of every training step; a function of `seed` and the epoch, whatever was drawn before.

    Position of image i of rank r in pass a of a step: (a * world_size + r) * images_per_gpu + i. `bad_images`
    names the files that this rank could not read so far; such an image takes part as a plain one
    without objects. Raises UserError if they become more than `max_bad_images`, or if a step wants
    more images than there are.
    """

    def __init__(
        self,
        split: CocoSplit,
        *,
        batch: int,
        bn_size: int,
        images_per_gpu: int,
        accumulation: int,
        rank: int,
        world_size: int,
        seed: int,
        min_size: int,
        max_size: int,
        flip: bool,
        aspect_grouping: bool,
        max_bad_images: int,
        workers: int,
        pin_memory: bool,
        train_scales: Sequence[float] = (),
        masks: bool = False,
    ) -> None:
        """`train_scales`: of images, one drawn for each padding group; none: they have the usual size.

        `masks`: batches have the objects' masks too, which `split` must have.
        """
        if batch != world_size * images_per_gpu * accumulation:
            raise ValueError(
                f"batch={batch} is not world_size={world_size} x images_per_gpu={images_per_gpu} "
                f"x accumulation={accumulation}"
            )
        if masks and split.masks is None:
            raise ValueError("masks are asked for, and the split was read without")
        if len(split) < batch:
            raise UserError(
                f"batch={batch} images, but {split.annotations.path} has {len(split)}: an epoch would have no step; "
                "ask for a smaller batch or more images (data.train_images)"
            )
        self.split = split
        self.batch, self.images_per_gpu, self.accumulation = batch, images_per_gpu, accumulation
        self.group = padding_group(batch=batch, bn_size=bn_size)
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.flip, self.aspect_grouping, self.max_bad_images = flip, aspect_grouping, max_bad_images
        self.limits = limits_of(min_size, max_size, train_scales)
        self._workers = Workers(PixelReader(split, masks=masks), workers=workers, pin_memory=pin_memory)
        self.bad_images: dict[str, str] = {}
        self._resized: dict[Limits, list[Size]] = {}

    @property
    def steps_per_epoch(self) -> int:
        return len(self.split) // self.batch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[TrainingStep]:
        """The steps of an epoch from its step `first_step` on.

        A pass is one batch, unless it has padding groups of different padded size: then it is one
        batch for each run of groups of equal size.
        """
        order = epoch_order(
            self.split.sizes,
            batch=self.batch,
            group=self.group,
            seed=self.seed,
            epoch=epoch,
            aspect_grouping=self.aspect_grouping,
        )
        passes = [
            self._requests(order, step * self.batch + (a * self.world_size + self.rank) * self.images_per_gpu, epoch)
            for step in range(first_step, self.steps_per_epoch)
            for a in range(self.accumulation)
        ]
        pixels = self._workers.read(passes)
        done: list[list[ImageBatch]] = []
        for requests, loaded in zip(passes, pixels, strict=True):
            record_bad(loaded.unreadable, self.bad_images, "training", self.max_bad_images, self.split.folder)
            masks: Sequence[list[Tensor] | None] = loaded.masks or [None] * len(requests)
            done.append(
                [
                    self._image_batch(request, images, of_images, loaded.unreadable, epoch)
                    for request, images, of_images in zip(requests, loaded.images, masks, strict=True)
                ]
            )
            if len(done) == self.accumulation:
                yield TrainingStep(done)
                done = []

    def _requests(self, order: list[int], start: int, epoch: int) -> list[Request]:
        """The images at positions start, start + 1, … of the epoch's order, cut where the padded size changes."""
        positions = range(start, start + self.images_per_gpu)

        def padded(position: int) -> tuple[Size, Limits]:
            number = position // self.group
            limits = self.limits[drawn_scale(self.seed, epoch, number, len(self.limits))]
            resized, first = self._resized_to(limits), number * self.group
            return common_size([resized[index] for index in order[first : first + self.group]]), limits

        requests = []
        for (size, limits), run in groupby(positions, key=padded):
            indices = tuple(order[position] for position in run)
            requests.append(Request(indices, tuple(self._flips(index, epoch) for index in indices), size, limits))
        return requests

    def _resized_to(self, limits: Limits) -> list[Size]:
        """The sizes of all images, computed once."""
        if limits not in self._resized:
            self._resized[limits] = resized_sizes(self.split, limits)
        return self._resized[limits]

    def _flips(self, index: int, epoch: int) -> bool:
        return self.flip and is_flipped(self.seed, epoch, self.split.image_ids[index])

    def _image_batch(
        self,
        request: Request,
        images: Tensor,
        masks: list[Tensor] | None,
        unreadable: dict[str, str],
        epoch: int,
    ) -> ImageBatch:
        image_ids = [self.split.image_ids[index] for index in request.indices]
        resized = self._resized_to(request.limits)
        boxes, labels = [], []
        for index, flip in zip(request.indices, request.flips, strict=True):
            of_image, label = self.split.boxes(index), self.split.labels(index)
            if self.split.file_names[index] in unreadable:
                of_image, label = of_image[:0], label[:0]
            boxes.append(self._resized_boxes(of_image, self.split.sizes[index], resized[index], flip))
            labels.append(torch.from_numpy(label.copy()))
        return ImageBatch(
            images=images,
            sizes=[resized[index] for index in request.indices],
            boxes=boxes,
            labels=labels,
            image_ids=image_ids,
            original_sizes=[self.split.sizes[index] for index in request.indices],
            sampling_keys=[sampling_key(self.seed, epoch, image_id) for image_id in image_ids],
            masks=masks,
        )

    @staticmethod
    def _resized_boxes(boxes: NDArray[np.float32], old: Size, new: Size, flip: bool) -> Tensor:
        (old_h, old_w), (new_h, new_w) = old, new
        scaled = boxes * np.array([new_w / old_w, new_h / old_h] * 2, dtype=np.float32)
        if flip:
            scaled[:, [0, 2]] = new_w - scaled[:, [2, 0]]
        return torch.from_numpy(scaled)
