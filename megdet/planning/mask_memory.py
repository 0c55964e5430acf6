"""The memory that masks add to a GPU's, counted as in `megdet.planning.memory`.

An image counts with as many regions as may have a mask. How many pixels the mask generator has under them depends on
the objects; it takes less than predicted where they are small.
"""

from __future__ import annotations

from megdet.config.schema import Config
from megdet.model.settings import narrower
from megdet.planning.module_memory import FLOAT, cells, has_norm

MOST_PIXELS = 1000
"""Under a region of the generator, on average: 28 to 56 along each side on the level below its own (Lin et al. 2017,
Eq. 1), and fewer under the half of COCO's objects that have none below."""
SHARE_OF_IMAGE = 1 / 4
"""The most of an image that a region has on average."""
INDEX = 8
"""Bytes of a whole number."""


def mask_weights(config: Config) -> int:
    """All are trained."""
    mask, channels, classes = config.model.mask, config.model.fpn.channels, config.data.num_classes or 0
    if mask.name is None:
        return 0
    inner = mask.channels or channels
    convolutions = 9 * inner * (channels + (mask.layers - 1) * inner) + mask.layers * inner
    if mask.name == "head":
        return convolutions + 4 * inner**2 + inner + (classes + 1) * (inner + 1)
    narrow = narrower(None, channels)
    levels = len(config.model.backbone.strides)
    return convolutions + (inner + 1) * narrow + levels * (channels + 1) * narrow + classes * (narrow + 1)


def mask_map_bytes(config: Config, width: int) -> float:
    """The generator's narrow maps and their float32 rows, for each pixel of the images."""
    model = config.model
    if model.mask.name != "generator":
        return 0.0
    of_cell = narrower(None, model.fpn.channels) * (width * (1 + has_norm(config, "mask")) + 2 * FLOAT)
    return of_cell * cells(model.backbone.strides)


def mask_image_bytes(config: Config, *, pixels: int, width: int) -> float:
    """Of an image of `pixels` pixels: what its regions with a mask keep, and what the first of backward adds."""
    model, mask = config.model, config.model.mask
    if mask.name is None:
        return 0.0
    share = 1.0 if model.roi_heads.sampler == "ohem" else model.roi_heads.positive_fraction
    regions = max(1, int(share * model.roi_heads.samples))
    bins, channels, classes = mask.resolution**2, model.fpn.channels, config.data.num_classes or 0
    inner = mask.channels or channels
    region: float = bins * width * (channels + mask.layers * inner)
    if mask.name == "head":
        # Twice as fine: the map before the logits, the logits of all classes, and the gradient of one of the two.
        region += 4 * bins * width * (inner + classes + 1 + min(inner, classes + 1))
    else:
        narrow = narrower(None, channels)
        under = min(MOST_PIXELS, SHARE_OF_IMAGE * pixels / model.backbone.strides[0] ** 2)
        region += bins * narrow * (width + FLOAT)
        # Of a pixel: its features before and after the activation, the five rows that they are read from, its place,
        # its logits.
        region += under * (2 * narrow * FLOAT + 5 * (INDEX + FLOAT) + 4 * INDEX + classes * (FLOAT + width))
    return regions * region
