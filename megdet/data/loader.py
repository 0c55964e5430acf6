"""The loaders: the batches of one rank, for training and for evaluation.

An image is always padded to a size known from the annotation file alone: in training that of its padding
group (one BN batch, or several small ones: `sampler.padding_group`), in evaluation its own multiple of 32. So what the
detector sees of an image does not depend on how many ranks, passes or workers there are.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from megdet.data.batch import ImageBatch, TrainingStep
from megdet.data.coco import CocoSplit
from megdet.data.image_header import UnreadableImage
from megdet.data.images import MEAN_COLOUR, load_image, resize, resized_size
from megdet.data.sampler import drawn_scale, epoch_order, is_flipped, padding_group, sampling_key
from megdet.data.size import Size
from megdet.errors import UserError, printable

SIZE_DIVISOR = 32
"""Padded sizes are multiples of it: the coarsest stride of the backbone."""

Limits = tuple[int, int]
"""What images are resized to: the shorter side, and the most of the longer one, in pixels."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    """The request to a worker: the images of one tensor."""

    indices: tuple[int, ...]
    flips: tuple[bool, ...]
    padded: Size
    limits: Limits


@dataclass(frozen=True)
class _Pixels:
    """A worker's answer to several requests: pixels only, since boxes need no worker."""

    images: list[Tensor]
    masks: list[list[Tensor]]
    """Of each image of each request; empty where none are read."""
    unreadable: dict[str, str]
    """File name -> reason."""

    def pin_memory(self) -> _Pixels:
        return replace(
            self,
            images=[image.pin_memory() for image in self.images],
            masks=[[mask.pin_memory() for mask in of_request] for of_request in self.masks],
        )


class _PixelReader(Dataset[_Pixels]):
    """Reads, resizes, mirrors and pads; asked by the list of requests that make one pass."""

    def __init__(self, split: CocoSplit, *, masks: bool = False) -> None:
        self.folder, self.file_names, self.sizes = split.folder, split.file_names, split.sizes
        self.masks = split.masks if masks else None

    def __getitem__(self, requests: Sequence[_Request]) -> _Pixels:
        unreadable: dict[str, str] = {}
        images = [self._read(request, unreadable) for request in requests]
        masks = [] if self.masks is None else [self._masks(request, unreadable) for request in requests]
        return _Pixels(images, masks, unreadable)

    def _read(self, request: _Request, unreadable: dict[str, str]) -> Tensor:
        batch = torch.zeros(len(request.indices), 3, *request.padded, dtype=torch.uint8)
        min_size, max_size = request.limits
        for place, index, flip in zip(batch, request.indices, request.flips, strict=True):
            size, name = self.sizes[index], self.file_names[index]
            try:
                image = load_image(self.folder / name, size)
                image = resize(image, min_size=min_size, max_size=max_size)
            except UnreadableImage as error:
                unreadable[name] = str(error)
                height, width = resized_size(size, min_size=min_size, max_size=max_size)
                image = torch.tensor(MEAN_COLOUR, dtype=torch.uint8)[:, None, None].expand(3, height, width)
            place[:, : image.shape[1], : image.shape[2]] = image.flip(-1) if flip else image
        return batch

    def _masks(self, request: _Request, unreadable: dict[str, str]) -> list[Tensor]:
        """uint8 [n, h, w] of each image, resized as it is."""
        assert self.masks is not None
        min_size, max_size = request.limits
        masks = []
        for index, flip in zip(request.indices, request.flips, strict=True):
            size = self.sizes[index]
            pixels = torch.from_numpy(self.masks.of(index).pixels(size))
            if self.file_names[index] in unreadable:
                pixels = pixels[:0]
            resized = _resized_masks(pixels, resized_size(size, min_size=min_size, max_size=max_size))
            masks.append(resized.flip(-1) if flip else resized)
        return masks


def _resized_masks(masks: Tensor, size: Size) -> Tensor:
    """Each pixel has the value of the old pixel that its centre lies in."""
    if not len(masks):
        return masks.new_zeros((0, *size))
    return F.interpolate(masks[:, None], size, mode="nearest-exact")[:, 0]


def _same(pixels: Any) -> Any:
    return pixels


class _Workers:
    """Who reads: worker processes that live as long as this object, or this process."""

    def __init__(self, reader: _PixelReader, *, workers: int, pin_memory: bool) -> None:
        self._passes: list[list[_Request]] = []
        context = None
        if workers > 0:
            # No fork of this process: its threads (OpenMP, gloo, NCCL, CUDA) would be half-dead in the child.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
        self._loader = DataLoader(
            reader,
            batch_size=None,
            sampler=self._passes,  # an index of the reader is a pass
            num_workers=workers,
            collate_fn=_same,
            pin_memory=pin_memory,
            multiprocessing_context=context,
            generator=torch.Generator(),  # else each epoch takes a number from the global one
            persistent_workers=workers > 0,
        )

    def read(self, passes: list[list[_Request]]) -> Iterator[_Pixels]:
        """The pixels of each pass, in order; one reading at a time."""
        self._passes[:] = passes
        yield from self._loader


def _padded(sizes: Sequence[Size]) -> Size:
    """The smallest size, in multiples of 32, into which all of these fit."""
    height, width = (-(-max(sides) // SIZE_DIVISOR) * SIZE_DIVISOR for sides in zip(*sizes, strict=True))
    return height, width


def limits_of(min_size: int, max_size: int, scales: Sequence[float]) -> list[Limits]:
    """What images are resized to: the usual limits times each of `scales`, or the usual ones where there is none."""
    return [(max(1, round(min_size * scale)), max(1, round(max_size * scale))) for scale in scales or (1.0,)]


def _resized_sizes(split: CocoSplit, limits: Limits) -> list[Size]:
    min_size, max_size = limits
    return [resized_size(size, min_size=min_size, max_size=max_size) for size in split.sizes]


def _record_bad(
    unreadable: dict[str, str], bad_images: dict[str, str], use: str, most: int, folder: Path, *, say: bool = True
) -> None:
    """Add the files of a pass that could not be read to `bad_images`. Raises UserError beyond `most`."""
    for name, reason in unreadable.items():
        if name not in bad_images:
            if say:
                _log.warning("cannot read %s image %s: %s", use, printable(name), printable(reason))
            bad_images[name] = reason
    check_bad_images(bad_images, most=most, folder=folder)


def check_bad_images(bad_images: dict[str, str], *, most: int, folder: Path) -> None:
    """Raises UserError where more than `most` files could not be read; `bad_images` says why each."""
    if len(bad_images) > most:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(bad_images.items())[:5])
        raise UserError(
            f"{len(bad_images)} images in {folder} cannot be read, data.max_bad_images={most}: {named}. "
            "Fetch or generate them again, or raise data.max_bad_images"
        )


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
        self._workers = _Workers(_PixelReader(split, masks=masks), workers=workers, pin_memory=pin_memory)
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
            _record_bad(loaded.unreadable, self.bad_images, "training", self.max_bad_images, self.split.folder)
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

    def _requests(self, order: list[int], start: int, epoch: int) -> list[_Request]:
        """The images at positions start, start + 1, … of the epoch's order, cut where the padded size changes."""
        positions = range(start, start + self.images_per_gpu)

        def padded(position: int) -> tuple[Size, Limits]:
            number = position // self.group
            limits = self.limits[drawn_scale(self.seed, epoch, number, len(self.limits))]
            resized, first = self._resized_to(limits), number * self.group
            return _padded([resized[index] for index in order[first : first + self.group]]), limits

        requests = []
        for (size, limits), run in groupby(positions, key=padded):
            indices = tuple(order[position] for position in run)
            requests.append(_Request(indices, tuple(self._flips(index, epoch) for index in indices), size, limits))
        return requests

    def _resized_to(self, limits: Limits) -> list[Size]:
        """The sizes of all images, computed once."""
        if limits not in self._resized:
            self._resized[limits] = _resized_sizes(self.split, limits)
        return self._resized[limits]

    def _flips(self, index: int, epoch: int) -> bool:
        return self.flip and is_flipped(self.seed, epoch, self.split.image_ids[index])

    def _image_batch(
        self,
        request: _Request,
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


class EvalLoader:
    """One rank's share of a split, each image on exactly one rank, in batches of equal padded size.

    Iterates over ImageBatch without boxes and labels; shares differ by one image at most, so ranks may have
    different numbers of batches. `bad_images` names the files that this rank could not read; such an
    image is given as a plain one, for it counts in the evaluation. Raises UserError if they become more than
    `max_bad_images`, for the numbers would then say little.
    """

    def __init__(
        self,
        split: CocoSplit,
        *,
        images_per_gpu: int,
        rank: int,
        world_size: int,
        min_size: int,
        max_size: int,
        workers: int,
        pin_memory: bool,
        max_bad_images: int,
        say_bad: bool = True,
    ) -> None:
        """`say_bad`: whether each file that cannot be read is a line of the log at once."""
        self.split, self.say_bad = split, say_bad
        self.pin_memory, self.max_bad_images = pin_memory, max_bad_images
        limits = (min_size, max_size)
        self.resized = _resized_sizes(split, limits)
        self._workers = _Workers(_PixelReader(split), workers=workers, pin_memory=pin_memory)
        self.bad_images: dict[str, str] = {}

        def padded(index: int) -> Size:
            return _padded([self.resized[index]])

        # Largest first: the memory that evaluation needs is known with its first batch.
        largest_first = sorted(range(len(split)), key=padded, reverse=True)
        self.requests = []
        for size, run in groupby(largest_first[rank::world_size], key=padded):
            indices = tuple(run)
            for start in range(0, len(indices), images_per_gpu):
                chunk = indices[start : start + images_per_gpu]
                self.requests.append(_Request(chunk, (False,) * len(chunk), size, limits))

    def __len__(self) -> int:
        """Batches on this rank."""
        return len(self.requests)

    def __iter__(self) -> Iterator[ImageBatch]:
        passes = [[request] for request in self.requests]
        pixels = self._workers.read(passes)
        for request, loaded in zip(self.requests, pixels, strict=True):
            most, folder = self.max_bad_images, self.split.folder
            _record_bad(loaded.unreadable, self.bad_images, "evaluation", most, folder, say=self.say_bad)
            yield ImageBatch(
                images=loaded.images[0],
                sizes=[self.resized[index] for index in request.indices],
                boxes=[],
                labels=[],
                image_ids=[self.split.image_ids[index] for index in request.indices],
                original_sizes=[self.split.sizes[index] for index in request.indices],
                sampling_keys=[],
            )
