"""The memory of training on one GPU, by layout: what is always there, and what a forward pass leaves for backward.

Counted from the shapes of the detector's layers, not fitted: float32 weights, gradients and momenta; of each
convolution its output where a trained norm follows (which needs it for backward) and the activation after that, which
the next one needs; one map a block with sublinear memory, and none where they go to main memory. On top of that come
the maps that live when the pyramid is read.

`tests/training/test_memory.py` holds it to what torch's allocator counts, to 15 %. Not held to that is an
EfficientNet-Lite0 with sublinear memory whose first stages are trained: it has been seen to take up to 30 % less, as
its largest block is recomputed when later maps have gone. What libraries take for
themselves (cuDNN's workspaces, the CUDA context, about 1 GB) is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from megdet.config.schema import Config
from megdet.data.size import PADDED_TOGETHER
from megdet.model.settings import OFFLOAD, ModelSettings, pyramid_strides
from megdet.planning.backbone_layers import Stage, stages_of
from megdet.planning.mask_memory import mask_image_bytes, mask_map_bytes, mask_weights
from megdet.planning.module_memory import FLOAT, module_image_bytes, module_map_bytes, module_weights

GB = 2**30
SIZE_DIVISOR = 32
"""Images are padded to multiples of it."""
SMALL_GPU_GB = 4
"""Taken for the memory of a GPU, or of a process on a CPU, where `cluster.gpu_memory_gb` is not known."""
USED_SHARE = 0.9
"""Of a GPU's memory: the rest is for CUDA itself, for libraries and for gaps between tensors."""


MODES: tuple[bool | str, ...] = (False, True, OFFLOAD)
"""Of sublinear memory, the one that takes most of a GPU's memory first."""


def memory_gb(config: Config, *, images: int, sublinear: bool | str) -> float | None:
    """The most memory in tensors on a GPU with `images` in a pass, in GB of 2^30 bytes.

    For images of the largest padded size that the config allows. None for a backbone of one's own.
    """
    stages = stages_of(config.model.backbone)
    if stages is None or config.data.num_classes is None:
        return None
    largest = max(config.data.train_scales or [1.0])
    pixels = _padded_pixels(round(largest * config.data.min_size), round(largest * config.data.max_size))
    width = 2 if config.precision == "bf16" else FLOAT
    saved = _saved_bytes(config, stages, sublinear=sublinear, width=width)
    saved += module_map_bytes(config, sublinear=sublinear, width=width) + mask_map_bytes(config, width)
    saved += _pyramid_bytes(config.model, width)
    of_image = _head_bytes(config.model, width) + module_image_bytes(config, width=width)
    of_image += mask_image_bytes(config, pixels=pixels, width=width) + pixels * saved
    return (_static_bytes(config, stages) + images * of_image) / GB


def most_images(config: Config, *, sublinear: bool | str) -> int | None:
    """How many images in a pass fit into `cluster.gpu_memory_gb`; None where one of the two is not known."""
    if config.cluster.gpu_memory_gb is None:
        return None
    return _images_in(USED_SHARE * config.cluster.gpu_memory_gb, config, sublinear=sublinear)


def frozen_images(config: Config, *, sublinear: bool | str) -> int:
    """How many images to have in a pass at once where BN is frozen: what is padded together, if it fits.

    Two, the paper's number, where memory cannot be predicted or a GPU of unknown size may be too small for more.
    """
    room_gb = USED_SHARE * (config.cluster.gpu_memory_gb or SMALL_GPU_GB)
    return max(2, min(PADDED_TOGETHER, _images_in(room_gb, config, sublinear=sublinear) or 0))


def _images_in(room_gb: float, config: Config, *, sublinear: bool | str) -> int | None:
    one, two = (memory_gb(config, images=images, sublinear=sublinear) for images in (1, 2))
    if one is None or two is None:
        return None
    return max(0, 1 + int((room_gb - one) // (two - one)))


def _padded_pixels(min_size: int, max_size: int) -> int:
    """Of an image whose sides are `min_size` and `max_size`: no image of one's data is larger."""
    height, width = (-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in (min_size, max_size))
    return height * width


def _static_bytes(config: Config, stages: Sequence[Stage]) -> float:
    """Weights, and a gradient and a momentum of each that is trained; with AGVM the gradient of half a batch, with an
    average the weights again."""
    model = config.model
    of_body = [sum(conv.weights + 2 * conv.outputs for block in stage for conv in block) for stage in stages]
    frozen = sum(of_body[: model.backbone.frozen_stages])
    rest = _pyramid_weights(model, stages) + _rpn_weights(model) + _head_weights(config)
    rest += module_weights(config) + mask_weights(config)
    every = sum(of_body) + rest
    of_trained = 3 if config.optimizer.agvm.interval is not None else 2
    copies = 1 if config.optimizer.ema_decay is None else 2
    return FLOAT * (copies * every + of_trained * (every - frozen)) + (2 * every if config.precision == "bf16" else 0)


def _pyramid_weights(model: ModelSettings, stages: Sequence[Stage]) -> int:
    channels = model.fpn.channels
    return sum((stage[-1][-1].outputs + 9 * channels) * channels + 4 * channels for stage in stages[1:])


def _rpn_weights(model: ModelSettings) -> int:
    channels, per_cell = model.fpn.channels, len(model.anchors.ratios)
    return 9 * channels**2 + channels + 5 * per_cell * (channels + 1)


def _head_weights(config: Config) -> int:
    model, classes = config.model, (config.data.num_classes or 0) + 1
    hidden = model.roi_heads.head_channels
    return hidden * (model.fpn.channels * model.roi_pool.resolution**2 + hidden + 2) + 5 * classes * (hidden + 1)


def _saved_bytes(config: Config, stages: Sequence[Stage], *, sublinear: bool | str, width: int) -> float:
    """What backbone and pyramid leave for backward, for each pixel of the images."""
    model = config.model
    in_body = config.bn_size > 0 and "backbone" in model.bn_in
    total, largest_block = 0.0, 0.0
    for number, stage in enumerate(stages):
        if number < model.backbone.frozen_stages:
            continue
        recomputed = sublinear and (model.backbone.atrous or number < len(stages) - 1)
        for block in stage:
            inside = sum(conv.numbers * (conv.kept + in_body) for conv in block)
            output = block[-1].numbers
            total += output if recomputed else inside
            largest_block = max(largest_block, inside - output * (sublinear != OFFLOAD) if recomputed else 0.0)
        if number == 0 and model.backbone.name != "tiny":
            # The max pooling of a ResNet: its output, and the places of the largest as int64.
            total += stage[-1][-1].numbers / 4 * (1 + 8 / width) * (not recomputed)
    if sublinear == OFFLOAD:
        return width * largest_block
    channels = model.fpn.channels
    in_pyramid = config.bn_size > 0 and "fpn" in model.bn_in
    # Of each level the sum that its convolution reads, and with a norm both convolutions' outputs.
    total += sum(channels / stride**2 * (1 + 2 * in_pyramid) for stride in model.backbone.strides)
    return width * (total + largest_block)


def _pyramid_bytes(model: ModelSettings, width: int) -> float:
    """The pyramid's maps and their float32 rows, which live together, for each pixel of the images."""
    numbers = model.fpn.channels * sum(1 / stride**2 for stride in pyramid_strides(model.backbone.strides))
    return numbers * (width + FLOAT)


def _head_bytes(model: ModelSettings, width: int) -> float:
    """Of an image: pooled regions, what the two layers behind them keep, and the surroundings of sampled anchors."""
    channels = model.fpn.channels
    # The values and their gradient; in bfloat16, values of two bytes and the gradient before and after it is float32.
    pooled = channels * model.roi_pool.resolution**2 * 2 * FLOAT
    region = pooled + 4 * model.roi_heads.head_channels * width
    anchor = (2 * 9 + 1) * channels * FLOAT
    return model.roi_heads.samples * region + model.rpn.samples * anchor
