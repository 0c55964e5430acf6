"""Pictures of detections beside the ground truth, and of sampled proposals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from megdet.runs.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette for colour-blind readers, by class; white and dashed is the ground truth."""
POSITIVE, NEGATIVE = "#E69F00", "#0072B2"
"""Of proposals: they differ in lightness and, as drawn, in width too."""
MAX_NEGATIVES = 24
MASK_OPACITY = 0.5
MIN_SCORE = 0.5
"""Of detections that are drawn, unless asked otherwise."""
SHORTER_SIDE = 480
"""Smaller images are enlarged to this, so that labels can be read."""

Boxes = NDArray[np.floating]


def detections_drawn(
    image: NDArray[np.uint8],
    *,
    boxes: Boxes,
    labels: Sequence[int],
    scores: Sequence[float],
    names: Sequence[str],
    masks: NDArray[np.uint8] | None = None,
    truth_boxes: Boxes | None = None,
    truth_labels: Sequence[int] = (),
    min_score: float = MIN_SCORE,
) -> Image.Image:
    """A picture of `image` (uint8 [H, W, 3], RGB) with its detections and, dashed, its ground truth.

    Boxes are [n, 4] as (x1, y1, x2, y2) in pixels of `image`; labels are 1-based places in `names`; masks are 0 and 1,
    [n, H, W], and colour what they cover.
    Detections below `min_score` are left out.
    """
    if masks is not None:
        image = _coloured(image, masks, labels, scores, min_score)
    picture, scale = _enlarged(image)
    draw, line, font = _tools(picture)
    for box, label in zip([] if truth_boxes is None else truth_boxes, truth_labels, strict=True):
        _dashed(draw, np.asarray(box) * scale, width=line)
        _text(draw, np.asarray(box) * scale, names[label - 1], font, colour="white", below=True)
    # The best last, on top.
    for box, label, score in reversed(list(zip(boxes, labels, scores, strict=True))):
        if score >= min_score:
            colour = COLOURS[(label - 1) % len(COLOURS)]
            _outline(draw, np.asarray(box) * scale, colour, width=line)
            _text(draw, np.asarray(box) * scale, f"{names[label - 1]} {score:.2f}", font, colour=colour)
    return picture


def _coloured(
    image: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    labels: Sequence[int],
    scores: Sequence[float],
    min_score: float,
) -> NDArray[np.uint8]:
    """The image with masks laid over it, half opaque, the best on top."""
    coloured = image.astype(np.float32)
    for mask, label, score in reversed(list(zip(masks, labels, scores, strict=True))):
        if score >= min_score:
            colour = np.array(ImageColor.getrgb(COLOURS[(label - 1) % len(COLOURS)]), dtype=np.float32)
            inside = mask.astype(bool)
            coloured[inside] += MASK_OPACITY * (colour - coloured[inside])
    return coloured.round().astype(np.uint8)


def draw_proposals(image: NDArray[np.uint8], path: Path, *, positive: Boxes, negative: Boxes) -> None:
    """Write `image` (uint8 [H, W, 3], RGB) to `path` as PNG with the proposals it was trained on (Figure 2).

    Boxes are [n, 4] as (x1, y1, x2, y2) in pixels of `image`. The picture says how many there are of each, and so do
    its PNG texts `positive` and `negative`; of the negatives no more than MAX_NEGATIVES are drawn, evenly picked.
    """
    picture, scale = _enlarged(image)
    draw, line, font = _tools(picture)
    stride = max(1, -(-len(negative) // MAX_NEGATIVES))
    for box in negative[::stride]:
        _outline(draw, np.asarray(box) * scale, NEGATIVE, width=max(1, line // 2))
    for box in positive:
        _outline(draw, np.asarray(box) * scale, POSITIVE, width=2 * line)
    corner = np.zeros(4)
    text = f"{len(positive)} positive, {len(negative)} negative"
    _text(draw, corner, text, font, colour="white")
    save_picture(picture, path, positive=len(positive), negative=len(negative))


def _enlarged(image: NDArray[np.uint8]) -> tuple[Image.Image, float]:
    """The image, no smaller than SHORTER_SIDE, and how many times larger it is."""
    height, width = image.shape[:2]
    scale = max(1.0, SHORTER_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), scale


def _tools(picture: Image.Image) -> tuple[ImageDraw.ImageDraw, int, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """What draws on the picture, and the line width and font that suit its size."""
    shorter = min(picture.size)
    return ImageDraw.Draw(picture), max(2, round(shorter / 200)), ImageFont.load_default(size=max(14, shorter // 32))


def _outline(draw: ImageDraw.ImageDraw, box: Boxes, colour: str, *, width: int) -> None:
    x1, y1, x2, y2 = (float(value) for value in box)
    draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)


def save_picture(picture: Image.Image, path: Path, **counts: int) -> None:
    """Write a picture as PNG, whole or not at all, with numbers as its PNG texts; folders on the way are made."""
    texts = PngInfo()
    for name, count in counts.items():
        texts.add_text(name, str(count))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        picture.save(file, format="PNG", pnginfo=texts)


def _dashed(draw: ImageDraw.ImageDraw, box: Boxes, *, width: int) -> None:
    x1, y1, x2, y2 = (float(value) for value in box)
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        for from_, to in _dashes(start, end, length=4.0 * width):
            draw.line((*from_, *to), fill="black", width=width + 2)
            draw.line((*from_, *to), fill="white", width=width)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], *, length: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    a, b = np.asarray(start), np.asarray(end)
    distance = float(np.hypot(*(b - a)))
    for place in np.arange(0, distance, 2 * length):
        from_, to = (a + (b - a) * min(1.0, q / distance) for q in (place, place + length))
        yield (float(from_[0]), float(from_[1])), (float(to[0]), float(to[1]))


def _text(
    draw: ImageDraw.ImageDraw,
    box: Boxes,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    *,
    colour: str,
    below: bool = False,
) -> None:
    """`text` on a plate of `colour` above the box (or below it), moved inside the picture."""
    x1, y1, _, y2 = (float(value) for value in box)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = 3
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    picture_width, picture_height = draw.im.size
    x = min(max(0.0, x1), picture_width - width)
    y = min(max(0.0, y2 if below else y1 - height), picture_height - height)
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    ink = "black" if colour in ("white", "#E69F00", "#56B4E9", "#CC79A7") else "white"
    draw.text((x + margin - left, y + margin - top), text, fill=ink, font=font)
