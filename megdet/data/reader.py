"""Who reads pixels for the loaders: worker processes, which are sent requests and answer with tensors.

An image is always padded to a size known from the annotation file alone, so a request has it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from megdet.data.coco import CocoSplit
from megdet.data.image_header import UnreadableImage
from megdet.data.images import MEAN_COLOUR, load_image, resize, resized_size
from megdet.data.size import Size

SIZE_DIVISOR = 32
"""Padded sizes are multiples of it: the coarsest stride of the backbone."""

Limits = tuple[int, int]
"""What images are resized to: the shorter side, and the most of the longer one, in pixels."""


@dataclass(frozen=True)
class Request:
    """The request to a worker: the images of one tensor."""

    indices: tuple[int, ...]
    flips: tuple[bool, ...]
    padded: Size
    limits: Limits


@dataclass(frozen=True)
class Pixels:
    """A worker's answer to several requests: pixels only, since boxes need no worker."""

    images: list[Tensor]
    masks: list[list[Tensor]]
    """Of each image of each request; empty where none are read."""
    unreadable: dict[str, str]
    """File name -> reason."""

    def pin_memory(self) -> Pixels:
        return replace(
            self,
            images=[image.pin_memory() for image in self.images],
            masks=[[mask.pin_memory() for mask in of_request] for of_request in self.masks],
        )


class PixelReader(Dataset[Pixels]):
    """Reads, resizes, mirrors and pads; asked by the list of requests that make one pass."""

    def __init__(self, split: CocoSplit, *, masks: bool = False) -> None:
        self.folder, self.file_names, self.sizes = split.folder, split.file_names, split.sizes
        self.masks = split.masks if masks else None

    def __getitem__(self, requests: Sequence[Request]) -> Pixels:
        unreadable: dict[str, str] = {}
        images = [self._read(request, unreadable) for request in requests]
        masks = [] if self.masks is None else [self._masks(request, unreadable) for request in requests]
        return Pixels(images, masks, unreadable)

    def _read(self, request: Request, unreadable: dict[str, str]) -> Tensor:
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

    def _masks(self, request: Request, unreadable: dict[str, str]) -> list[Tensor]:
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


class Workers:
    """Who reads: worker processes that live as long as this object, or this process."""

    def __init__(self, reader: PixelReader, *, workers: int, pin_memory: bool) -> None:
        self._passes: list[list[Request]] = []
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

    def read(self, passes: list[list[Request]]) -> Iterator[Pixels]:
        """The pixels of each pass, in order; one reading at a time."""
        self._passes[:] = passes
        yield from self._loader


def common_size(sizes: Sequence[Size]) -> Size:
    """The smallest size, in multiples of 32, into which all of these fit."""
    height, width = (-(-max(sides) // SIZE_DIVISOR) * SIZE_DIVISOR for sides in zip(*sizes, strict=True))
    return height, width


def limits_of(min_size: int, max_size: int, scales: Sequence[float]) -> list[Limits]:
    """What images are resized to: the usual limits times each of `scales`, or the usual ones where there is none."""
    return [(max(1, round(min_size * scale)), max(1, round(max_size * scale))) for scale in scales or (1.0,)]


def resized_sizes(split: CocoSplit, limits: Limits) -> list[Size]:
    """Of all images of a split."""
    min_size, max_size = limits
    return [resized_size(size, min_size=min_size, max_size=max_size) for size in split.sizes]
