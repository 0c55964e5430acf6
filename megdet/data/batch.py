"""The loader's output: the images of one forward pass, and the passes of one optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from megdet.data.size import Size


@dataclass
class ImageBatch:
    """The images of one forward pass on one GPU: N images padded to one size.

    Coordinates are pixels of the resized images. In evaluation `boxes` and `labels` are empty lists.
    """

    images: Tensor
    """uint8 [N, 3, H, W], RGB, H and W multiples of 32; 0 outside each image's own area."""
    sizes: list[Size]
    """Each image's own area inside the padded tensor."""
    boxes: list[Tensor]
    """float32 [n_i, 4] as (x1, y1, x2, y2); objects only, crowd regions left out."""
    labels: list[Tensor]
    """int64 [n_i], 1..num_classes (0 is background)."""
    image_ids: list[int]
    original_sizes: list[Size]
    """As stored in the annotation file."""
    sampling_keys: list[int]
    """Seeds of what the detector samples for each image: a function of seed, epoch and image id alone."""
    masks: list[Tensor] | None = None
    """uint8 [n_i, h_i, w_i], 0 and 1: the objects in each image's own area; None where they were not asked for."""

    def __len__(self) -> int:
        return self.images.shape[0]

    def part(self, start: int, stop: int) -> ImageBatch:
        """The images from `start` up to `stop`, as a batch with the same padding."""
        chosen = slice(start, stop)
        return ImageBatch(
            images=self.images[chosen],
            sizes=self.sizes[chosen],
            boxes=self.boxes[chosen],
            labels=self.labels[chosen],
            image_ids=self.image_ids[chosen],
            original_sizes=self.original_sizes[chosen],
            sampling_keys=self.sampling_keys[chosen],
            masks=None if self.masks is None else self.masks[chosen],
        )

    def to(self, device: torch.device) -> ImageBatch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            boxes=[b.to(device, non_blocking=True) for b in self.boxes],
            labels=[t.to(device, non_blocking=True) for t in self.labels],
            masks=None if self.masks is None else [m.to(device, non_blocking=True) for m in self.masks],
        )


@dataclass(frozen=True)
class TrainingStep:
    """What one rank does for one optimizer step."""

    passes: list[list[ImageBatch]]
    """`images_per_gpu` images each, one pass after the other. A pass is one batch, or several where
    padded sizes differ."""

    @property
    def image_batches(self) -> list[ImageBatch]:
        """The batches of all passes, in order: one forward and backward each."""
        return [images for one_pass in self.passes for images in one_pass]
