"""From a file to the pixels that the detector sees: decode to RGB, turn upright, resize."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
import torchvision.io  # its import registers torch.ops.image
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from megdet.data.size import Size

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean RGB, rounded: close to 0 once normalised. Stands in for an image that cannot be read."""

_RGB = torchvision.io.ImageReadMode.RGB.value


class UnreadableImage(Exception):
    """An image file that gives no pixels of the annotated size; the text is the reason."""


def load_image(path: Path | str, size: Size) -> Tensor:
    """Decode an image file to uint8 [3, h, w] RGB; `size` is the (h, w) of the annotation file.

    The boxes were drawn on an image of that size, so it decides about EXIF orientation: the upright image
    if its size is `size` (also where both fit), else the stored one. Raises UnreadableImage if neither fits,
    or if the file is missing, truncated or no image.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    upright = _decode(data, upright=True)
    if _size(upright) == tuple(size):
        return upright
    stored = _decode(data, upright=False)
    if _size(stored) == tuple(size):
        return stored
    raise UnreadableImage(
        f"the file has {stored.shape[2]}x{stored.shape[1]} pixels, its annotation says {size[1]}x{size[0]}"
    )


def _size(image: Tensor) -> Size:
    return image.shape[1], image.shape[2]


def _decode(data: bytes, *, upright: bool) -> Tensor:
    """torchvision's libjpeg first (grey, CMYK and EXIF included); PIL has the last word on what it refuses.

    Both raise on a truncated JPEG instead of filling the rest with grey. The operator is called
    directly because its Python wrapper warns on every image (deprecated from 0.29 in favour of a new package).
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image: Tensor = torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB, upright)
        return image
    except (RuntimeError, AttributeError):  # not a JPEG, a damaged one, or a torchvision without the decoder
        pass
    try:
        with Image.open(io.BytesIO(data)) as picture:
            rgb = (ImageOps.exif_transpose(picture) if upright else picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(str(error).replace("<_io.BytesIO object", "<data")) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def resized_size(size: Size, *, min_size: int, max_size: int) -> Size:
    """The size with the short side at `min_size`, or smaller where the long side would pass `max_size`.

    Rounds down exactly as torchvision's GeneralizedRCNNTransform (float64 product, then floor).
    """
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def resize(image: Tensor, *, min_size: int, max_size: int) -> Tensor:
    """The image at its `resized_size`: uint8 in, uint8 out, bilinear with antialiasing."""
    size = resized_size(_size(image), min_size=min_size, max_size=max_size)
    resized: Tensor = transforms.resize(image, list(size), antialias=True)
    return resized
