"""The header of an image file: format and size, read before decoding."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from megdet.data.regular_file import open_regular
from megdet.data.size import Size

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "JPEG2000", "AVIF", "PPM", "TGA")
"""Formats of pictures; Pillow knows more, some of which start other programs (EPS) or are documents."""
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values that exchange height and width."""
Image.init()  # else Pillow looks for some of them only after a first failure


class UnreadableImage(Exception):
    """An image file that gives no pixels of the annotated size; the text is the reason."""


def check_header(file: BinaryIO, annotated: Size) -> str:
    """The format of an image (one of FORMATS, or MPO: a JPEG with further pictures behind it), by its header.

    Raises UnreadableImage where it has the annotated size neither as stored nor as EXIF turns it; other errors are
    Pillow's own.
    """
    with Image.open(file, formats=FORMATS) as picture:
        # Of some formats Pillow gives the size as EXIF turns it, so that either may be the stored one.
        width, height = picture.size
        is_turned = annotated == (width, height) and picture.getexif().get(ORIENTATION) in QUARTER_TURNS
        if annotated != (height, width) and not is_turned:
            raise UnreadableImage(
                f"the file has {width}x{height} pixels, its annotation says {annotated[1]}x{annotated[0]}"
            )
        assert picture.format is not None
        return picture.format


def check_image_header(path: Path | str, annotated: Size) -> None:
    """Raises UnreadableImage where the file's header is none of an image of the annotated size; never blocks."""
    with image_errors(), open_regular(path) as file:
        check_header(file, annotated)


def upright_size(path: Path | str) -> Size:
    """The size of an image as people see it, turned as EXIF says. Raises UnreadableImage; never blocks."""
    with image_errors(), open_regular(path) as file, Image.open(file, formats=FORMATS) as picture:
        is_turned = picture.getexif().get(ORIENTATION) in QUARTER_TURNS
        return (picture.width, picture.height) if is_turned else (picture.height, picture.width)


@contextmanager
def image_errors() -> Iterator[None]:
    """Turns any error inside into UnreadableImage: one bad file must not end a run.

    Decoders raise all kinds of errors on damaged files (struct.error, IndexError, ZeroDivisionError, ...), and warn of
    what they put up with.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnreadableImage:
            raise
        except UnidentifiedImageError:
            raise UnreadableImage("not an image of a known format, or damaged in its first bytes") from None
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        except Exception as error:
            raise UnreadableImage(str(error) or type(error).__name__) from error
