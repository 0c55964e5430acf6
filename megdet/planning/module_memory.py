"""The memory that the enhanced detector's modules add to a GPU's, counted as in `megdet.planning.memory`."""

from __future__ import annotations

from collections.abc import Sequence

from megdet.config.schema import Config
from megdet.model.settings import OFFLOAD, narrower, pyramid_strides

FLOAT = 4
"""Bytes of float32."""
SEGMENTED_STRIDE = 8
CONTEXT_LEVELS = 3
"""That the surroundings of a region are read from."""
ROWS_OF_A_BIN = 6.5
"""About so many pixels make one bin of RoIAlign; each has an index and a weight."""


def module_weights(config: Config) -> int:
    """Of all modules that are switched on; all are trained."""
    model, total = config.model, 0
    channels, strides = model.fpn.channels, model.backbone.strides
    if model.large_kernel.size is not None:
        between = narrower(model.large_kernel.channels, channels)
        total += len(pyramid_strides(strides)) * 4 * model.large_kernel.size * channels * between
    if model.context.scale is not None:
        inner = narrower(model.context.channels, channels)
        total += len(strides) * channels * inner + 9 * CONTEXT_LEVELS * inner * channels
    if model.segmentation.weight is not None:
        inner = narrower(model.segmentation.channels, channels)
        total += len(strides) * 9 * channels * inner + inner * ((config.data.num_classes or 0) + 1)
    return total


def module_map_bytes(config: Config, *, sublinear: bool | str, width: int) -> float:
    """What their maps leave for backward, for each pixel of the images; `width`: bytes of a number in them."""
    model, total = config.model, 0.0
    channels, strides = model.fpn.channels, model.backbone.strides
    if model.large_kernel.size is not None:
        inside = 2 * narrower(model.large_kernel.channels, channels) + channels * has_norm(config, "large_kernel")
        levels = pyramid_strides(strides)
        total += width * channels * cells(levels[:1] if sublinear == OFFLOAD else levels)
        total += width * inside * cells(levels[:1] if sublinear else levels)
    if model.context.scale is not None:
        inner = narrower(model.context.channels, channels)
        total += width * inner * (1 + has_norm(config, "context")) * cells(strides)
    if model.segmentation.weight is not None:
        inner = narrower(model.segmentation.channels, channels)
        # What the average pooling and the last layer read, and scores and their logarithms.
        total += width * inner * (has_norm(config, "segmentation") * cells(strides) + cells(strides[:1]))
        total += (width * inner + 2 * FLOAT * ((config.data.num_classes or 0) + 1)) / SEGMENTED_STRIDE**2
    return total


def module_image_bytes(config: Config, *, width: int) -> float:
    """What they keep for the sampled regions of an image: the context extractor's features."""
    model = config.model
    if model.context.scale is None:
        return 0.0
    bins, channels = model.roi_pool.resolution**2, model.fpn.channels
    around = CONTEXT_LEVELS * 4 * bins
    read = around * narrower(model.context.channels, channels) * (FLOAT + width)
    return model.roi_heads.samples * (read + 2 * FLOAT * around * ROWS_OF_A_BIN + 2 * FLOAT * channels * bins)


def has_norm(config: Config, place: str) -> bool:
    return config.bn_size > 0 and place in config.model.bn_in


def cells(strides: Sequence[int]) -> float:
    """Of levels with these strides, for each pixel of the image."""
    return sum(1 / stride**2 for stride in strides)
