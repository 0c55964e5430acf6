"""The settings of a data set. Standard library only: planning reads them."""

from __future__ import annotations

from dataclasses import dataclass

from megdet.errors import UserError
from megdet.settings.rules import Flag, Name, Settings, Text, Whole, setting

MOST_PIXELS = 16384


@dataclass
class DataSettings(Settings):
    """A data set in COCO's layout; `shapes` is generated where it is missing."""

    name: str = setting("coco2017", Name())
    root: str = setting("data/coco2017", Text())
    train_images: int = setting(118287, Whole(least=1))
    val_images: int = setting(5000, Whole(least=1))
    num_classes: int = setting(80, Whole(least=1, most=100_000))
    min_size: int = setting(800, Whole(least=1, most=MOST_PIXELS))
    """Images are resized so that their shorter side has this many pixels ..."""
    max_size: int = setting(1333, Whole(least=1, most=MOST_PIXELS))
    """... unless their longer side would then exceed this."""
    flip: bool = setting(True, Flag())
    """Mirror half of the training images."""
    aspect_grouping: bool = setting(True, Flag())
    """Images of one orientation share a BN batch, so that padding stays small."""
    max_bad_images: int = setting(10, Whole())
    """Unreadable images that are tolerated (each is named and counted) before a run fails."""
    workers: int = setting(4, Whole(most=1024))
    """Loader processes of each GPU."""

    def check_together(self, prefix: str) -> None:
        if self.max_size < self.min_size:
            raise UserError(
                f"{prefix}max_size={self.max_size} is below {prefix}min_size={self.min_size}: "
                "the longer side cannot be the smaller one"
            )
