"""Files that cannot be read: said once, counted, and refused beyond a number."""

from __future__ import annotations

import logging
from pathlib import Path

from megdet.errors import UserError, printable

_log = logging.getLogger(__name__)


def record_bad(
    unreadable: dict[str, str], bad_images: dict[str, str], use: str, most: int, folder: Path, *, say: bool = True
) -> None:
    """Add the files of a pass that could not be read to `bad_images`. Raises UserError beyond `most`."""
    for name, reason in unreadable.items():
        if name not in bad_images:
            if say:
                _log.warning("cannot read %s image %s: %s", use, printable(name), printable(reason))
            bad_images[name] = reason
    check_bad_images(bad_images, most=most, folder=folder)


def check_bad_images(bad_images: dict[str, str], *, most: int, folder: Path) -> None:
    """Raises UserError where more than `most` files could not be read; `bad_images` says why each."""
    if len(bad_images) > most:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(bad_images.items())[:5])
        raise UserError(
            f"{len(bad_images)} images in {folder} cannot be read, data.max_bad_images={most}: {named}. "
            "Fetch or generate them again, or launch with a larger data.max_bad_images, which makes another run"
        )
