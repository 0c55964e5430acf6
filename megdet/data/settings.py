"""The settings of a data set. Standard library only: planning reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

from megdet.errors import UserError
from megdet.settings.paths import PathText
from megdet.settings.rules import Each, Flag, Name, Number, Settings, Whole, setting, shown

MOST_PIXELS = 16384


@dataclass
class SplitSettings(Settings):
    """The files of the training or of the validation images; paths are below `data.root`, or absolute."""

    annotations: str | None = setting(None, PathText())
    """A COCO annotation file; None: where COCO 2017 has it below `data.root`."""
    images: str | None = setting(None, PathText())
    """The folder that the file names in it start from; None: the folder of the annotation file."""


@dataclass
class DataSettings(Settings):
    """COCO 2017; `shapes` or `digits`, which are generated where missing; or own images with COCO annotation files."""

    name: str = setting("coco2017", Name())
    root: str = setting("data/coco2017", PathText())
    train: SplitSettings = field(default_factory=SplitSettings)
    val: SplitSettings = field(default_factory=SplitSettings)
    """Both: files of one's own; where none is given, `root` has COCO 2017's layout."""
    val_fraction: float | None = setting(None, Number(above=0, most=0.9))
    """The share of the training images that validate instead, chosen by their file names."""
    train_images: int | None = setting(118287, Whole(least=1))
    """None: as many as the files have, as for the next two."""
    val_images: int | None = setting(5000, Whole(least=1))
    num_classes: int | None = setting(80, Whole(least=1, most=100_000))
    fingerprint: str | None = setting(None, Name())
    """What the content is known by, where the name does not say it; found out when planning. Given, it is checked."""
    masks_fingerprint: str | None = setting(None, Name())
    """The same of the objects' masks, where the model learns them."""
    min_size: int = setting(800, Whole(least=1, most=MOST_PIXELS))
    """Images are resized so that their shorter side has this many pixels ..."""
    max_size: int = setting(1333, Whole(least=1, most=MOST_PIXELS))
    """... unless their longer side would then exceed this."""
    train_scales: list[float] | None = setting(None, Each(Number(above=0, most=8), least=1))
    """Multi-scale training: training images are so many times as large as `min_size` and `max_size` say, one of these
    drawn for each padding group (a BN batch, or several small ones); None: 1."""
    flip: bool = setting(True, Flag())
    """Mirror half of the training images."""
    aspect_grouping: bool = setting(True, Flag())
    """Images of nearly one aspect ratio share a BN batch, so that padding stays small."""
    max_bad_images: int = setting(10, Whole())
    """Unreadable images that are tolerated (each is named and counted) before a run fails."""
    workers: int = setting(4, Whole(most=1024))
    """Loader processes of each GPU."""

    @property
    def has_own_places(self) -> bool:
        """Whether the files have other paths than COCO 2017's."""
        places = (self.train.annotations, self.train.images, self.val.annotations, self.val.images)
        return self.val_fraction is not None or any(place is not None for place in places)

    def check_together(self, prefix: str) -> None:
        if self.max_size < self.min_size:
            raise UserError(
                f"{prefix}max_size={self.max_size} is below {prefix}min_size={self.min_size}: "
                "the longer side cannot be the smaller one"
            )
        if self.train_scales is not None and len(set(self.train_scales)) < len(self.train_scales):
            raise UserError(
                f"{prefix}train_scales={shown(self.train_scales)} names a scale twice; name each once: all are drawn "
                "equally often"
            )
        if self.train_scales is not None and max(self.train_scales) * self.max_size > MOST_PIXELS:
            raise UserError(
                f"{prefix}train_scales={shown(self.train_scales)} makes images of up to "
                f"{max(self.train_scales) * self.max_size:g} pixels from {prefix}max_size={self.max_size}; use scales "
                f"that keep them within {MOST_PIXELS}"
            )
