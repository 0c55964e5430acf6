"""Pictures from run folders, as parts of a figure."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from megdet.data.image_header import UnreadableImage, image_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 2.5
"""Inches of a picture in a figure."""
RESOLUTION = 180
"""Pixels per inch: what is written on a picture stays readable."""
JPEG_QUALITY = 80
"""Of pictures in an SVG: two dozen stay below 1 MB."""


def whole(paths: Iterable[Path]) -> list[Path]:
    """The pictures that can be read; the others are left out, with a line each on stderr."""
    found = []
    for path in paths:
        try:
            with image_errors(), Image.open(path) as picture:
                picture.load()
        except UnreadableImage as damaged:
            print(f"left out: {path} ({damaged})", file=sys.stderr)
        else:
            found.append(path)
    return found


def show(path: Path, axes: Axes) -> None:
    """The picture in the axes, without a frame."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((round(WIDTH * RESOLUTION), round(WIDTH * RESOLUTION)))
    axes.imshow(np.asarray(small), interpolation="none")
    hide(axes)


def save_small(png: Path) -> None:
    """Give a PNG with pictures 256 colours: no eye tells them apart, and the file is a fifth as large."""
    with Image.open(png) as picture:
        few = picture.convert("RGB").quantize(256)
    few.save(png, optimize=True)


def with_jpegs(svg: str) -> str:
    """An SVG with its opaque pictures as JPEG where that is smaller; matplotlib embeds them as PNG."""
    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", lambda found: _as_jpeg(found[0], found[1]), svg)


def _as_jpeg(png: str, content: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        if picture.has_transparency_data and picture.getchannel("A").getextrema() != (255, 255):
            return png
        jpeg = io.BytesIO()
        picture.convert("RGB").save(jpeg, format="JPEG", quality=JPEG_QUALITY)
    as_jpeg = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    return min(png, as_jpeg, key=len)


def hide(axes: Axes) -> None:
    """Hide frame and ticks of the axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def height_of(paths: Sequence[Path]) -> float:
    """The height in inches of the tallest of a row of pictures, as `show` draws them."""
    return max(WIDTH * min(1.0, _ratio(path)) for path in paths)


def _ratio(path: Path) -> float:
    with Image.open(path) as picture:
        return picture.height / picture.width
