"""Images of textured noise with boxes, for benchmarks of training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from megdet.data.batch import ImageBatch

NUM_CLASSES = 80
OBJECTS = 7
"""Of an image, as many as COCO's have on average."""


def sample(images: int, height: int, width: int, *, masks: bool = False) -> ImageBatch:
    """`images` images of `height` x `width` pixels, padded to multiples of 32, the same at every call.

    `masks`: objects have masks too, which fill their boxes.
    """
    import torch
    from torch.nn.functional import interpolate, pad

    from megdet.data.batch import ImageBatch

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(images, 3, height // 16, width // 16, generator=generator) * 255
    pixels = interpolate(coarse, size=(height, width), mode="bilinear").to(torch.uint8)
    boxes = []
    for _ in range(images):
        corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([0.6 * width, 0.6 * height])
        extent = (0.05 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)) * height
        boxes.append(torch.cat([corner, corner + extent], dim=1))
    labels = [torch.randint(1, NUM_CLASSES + 1, (OBJECTS,), generator=generator) for _ in range(images)]
    whole = [(height, width)] * images
    padded = pad(pixels, (0, -width % 32, 0, -height % 32))
    drawn = [_filled(of_image, height, width) for of_image in boxes] if masks else None
    return ImageBatch(padded, whole, boxes, labels, list(range(images)), whole, list(range(images)), drawn)


def _filled(boxes: Tensor, height: int, width: int) -> Tensor:
    import torch

    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks
