"""Images of textured noise with boxes, for benchmarks of training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megdet.data.batch import ImageBatch

NUM_CLASSES = 80
OBJECTS = 7
"""Of an image, as many as COCO's have on average."""


def sample(images: int, height: int, width: int) -> ImageBatch:
    """`images` images of `height` x `width` pixels, padded to multiples of 32, the same at every call."""
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
    return ImageBatch(padded, whole, boxes, labels, list(range(images)), whole, list(range(images)))
