"""The evaluation loader: one rank's share of a split, each image padded to its own multiple of 32."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from megdet.data.bad_images import record_bad
from megdet.data.batch import ImageBatch
from megdet.data.coco import CocoSplit
from megdet.data.reader import PixelReader, Request, Workers, common_size, resized_sizes
from megdet.data.size import Size


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
        self.resized = resized_sizes(split, limits)
        self._workers = Workers(PixelReader(split), workers=workers, pin_memory=pin_memory)
        self.bad_images: dict[str, str] = {}

        def padded(index: int) -> Size:
            return common_size([self.resized[index]])

        # Largest first: the memory that evaluation needs is known with its first batch.
        largest_first = sorted(range(len(split)), key=padded, reverse=True)
        self.requests = []
        for size, run in groupby(largest_first[rank::world_size], key=padded):
            indices = tuple(run)
            for start in range(0, len(indices), images_per_gpu):
                chunk = indices[start : start + images_per_gpu]
                self.requests.append(Request(chunk, (False,) * len(chunk), size, limits))

    def __len__(self) -> int:
        """Batches on this rank."""
        return len(self.requests)

    def __iter__(self) -> Iterator[ImageBatch]:
        passes = [[request] for request in self.requests]
        pixels = self._workers.read(passes)
        for request, loaded in zip(self.requests, pixels, strict=True):
            most, folder = self.max_bad_images, self.split.folder
            record_bad(loaded.unreadable, self.bad_images, "evaluation", most, folder, say=self.say_bad)
            yield ImageBatch(
                images=loaded.images[0],
                sizes=[self.resized[index] for index in request.indices],
                boxes=[],
                labels=[],
                image_ids=[self.split.image_ids[index] for index in request.indices],
                original_sizes=[self.split.sizes[index] for index in request.indices],
                sampling_keys=[],
            )
