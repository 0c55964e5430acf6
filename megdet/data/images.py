"""Image files to the detector's pixels: decode to RGB, turn upright, resize."""

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

from megdet.data.image_header import FORMATS, UnreadableImage, check_header, image_errors
from megdet.data.regular_file import open_regular
from megdet.data.size import Size

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean RGB, rounded: close to 0 once normalised. Stands in for an image that cannot be read."""

_RGB = torchvision.io.ImageReadMode.RGB.value
_SIXTEEN_BITS_AS_I = ("PNG", "PPM")
"""Formats of which Pillow gives 16-bit grey as 32-bit integers of 0..65535."""


def load_image(path: Path | str, size: Size) -> Tensor:
    """Decode an image file to uint8 [3, h, w] RGB; `size` is the (h, w) of the annotation file.

    The boxes were drawn on an image of that size, so it decides about EXIF orientation: the upright image
    if its size is `size` (also where both fit), else the stored one. 16-bit images are scaled to 8 bits (0..65535 to
    0..255, whatever part of the range they use); transparent ones are laid on white, as annotation tools show them.

    Raises:
        UnreadableImage: where neither size fits (seen in the header, before anything is decoded), where pixels have
            no known range (floating-point, 32-bit), and where the file is missing, damaged, no file or no image.
    """
    size = (int(size[0]), int(size[1]))
    with image_errors():
        with open_regular(path) as file:
            image_format = check_header(file, size)
            file.seek(0)
            data = file.read()
        upright = _decode(data, image_format, upright=True)
        if _size(upright) == size:
            return upright
        stored = _decode(data, image_format, upright=False)
        if _size(stored) == size:
            return stored
    height, width = _size(stored)
    raise UnreadableImage(f"the file has {width}x{height} pixels, its annotation says {size[1]}x{size[0]}")


def _size(image: Tensor) -> Size:
    return image.shape[1], image.shape[2]


def _decode(data: bytes, image_format: str, *, upright: bool) -> Tensor:
    """torchvision's libjpeg for JPEG (grey, CMYK and EXIF included); PIL has the last word on what it refuses.

    Both raise on a truncated JPEG instead of filling the rest with grey. The operator is called
    directly because its Python wrapper warns on every image (deprecated from 0.29 in favour of a new package).
    """
    if image_format in ("JPEG", "MPO"):
        try:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            image: Tensor = torch.ops.image.decode_jpeg(content, _RGB, upright)
            return image
        except (RuntimeError, AttributeError):  # a damaged one, or a torchvision without the decoder
            pass
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        rgb = _to_rgb(ImageOps.exif_transpose(picture) if upright else picture, image_format)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _to_rgb(picture: Image.Image, image_format: str) -> Image.Image:
    """The picture in mode RGB."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and image_format in _SIXTEEN_BITS_AS_I):
        levels = np.rint(np.asarray(picture, dtype=np.float64) / 257)  # 65535 = 257 x 255
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        kind = "32-bit integers" if picture.mode == "I" else "floating-point numbers"
        raise UnreadableImage(f"its pixels are {kind}, whose black and white nobody knows; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


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
