"""What a batch norm sums over the pixels of each channel, in float32 input and nearly float64 accuracy.

torch's kernels for a CPU add up all pixels of a thread one after the other in float32: at 16 x 200 x 336 pixels the
variance is off by 5e-4, and by another amount on every number of threads. Here blocks of pixels that fit a core's cache
are cut into RUNS runs; each run is summed in float32, runs and blocks are joined in float64 (Chan et al. 1979). Which
pixels make a run depends on the shape alone, and torch shares out sums over whole runs among its threads: the result
has the same bits on any number of them up to RUNS. GPUs sum in trees, so torch's kernels serve there.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from megdet.model.wide import wide, wide_dtype

RUNS = 16
"""Of a block."""
BLOCK = 2**19
"""Numbers in a block, all channels together."""
LONGEST_RUN = 4096
"""Pixels."""


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C], float64, over the pixels of x [N, C, H, W]; zeros where there are none."""
    zeros = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    if x.numel() == 0:
        return zeros, zeros
    if x.device.type != "cpu":
        # float32 averages make the kernel accumulate and answer in float32 also for half-precision input.
        averages = zeros.to(wide_dtype(x.dtype))
        mean, var = torch.batch_norm_update_stats(x, averages, averages.clone(), momentum=0.0)
        return mean.double(), var.double()
    counts, means, squares = [], [], []
    for block in _blocks(x):
        pixels = block.shape[0] * block.shape[1]
        # Near enough to the block's mean that little is lost in the difference of squares.
        some = block[:, : -(-block.shape[1] // 8)]
        shift = (_joined(some.sum(1)) / (some.shape[0] * some.shape[1])).to(block.dtype)
        deviation = block - shift
        mean = _joined(deviation.sum(1)) / pixels
        counts.append(pixels)
        means.append(mean + shift)
        squares.append(_joined(deviation.mul_(deviation).sum(1)) - pixels * mean.square())
    if len(counts) == 1:
        return means[0], squares[0] / counts[0]
    weights = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    of_block = torch.stack(means)
    mean = (weights * of_block).sum(0)
    between = (weights * (of_block - mean).square()).sum(0)
    return mean, torch.stack(squares).sum(0) / sum(counts) + between


def channel_gradients(dy: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [C] over the pixels of dy and of dy * (x - mean), float64; for dy and x [N, C, H, W] and mean [C]."""
    zeros = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    if x.numel() == 0:
        return zeros, zeros
    if x.device.type != "cpu":
        ones = torch.ones_like(mean)
        _, of_product, of_dy = torch.ops.aten.native_batch_norm_backward(
            dy, x, ones, None, None, mean, ones, True, 0.0, [False, True, True]
        )
        return of_dy.double(), of_product.double()
    # Both are cut alike.
    memory_format = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    dy, x = dy.contiguous(memory_format=memory_format), x.contiguous(memory_format=memory_format)
    sums_of_dy, sums_of_product = [], []
    for dy_block, x_block in zip(_blocks(dy), _blocks(x), strict=True):
        sums_of_dy.append(_joined(dy_block.sum(1)))
        sums_of_product.append(_joined((x_block - mean).mul_(dy_block).sum(1)))
    return torch.stack(sums_of_dy).sum(0), torch.stack(sums_of_product).sum(0)


def _joined(sums: Tensor) -> Tensor:
    """The sum [C] of the sums of runs [runs, C], in float64."""
    return sums.sum(0, dtype=torch.float64)


def _blocks(x: Tensor) -> Iterator[Tensor]:
    """The pixels of x [N, C, H, W] as blocks [runs, pixels of a run, C], in float32 at least."""
    channels = x.shape[1]
    length = max(1, min(LONGEST_RUN, BLOCK // (RUNS * channels)))
    for pixels in _rows(x):
        for block in map(wide, pixels.split(RUNS * length)):
            whole = len(block) // RUNS
            if whole:
                yield block[: RUNS * whole].unflatten(0, (RUNS, whole))
            if len(block) % RUNS:
                # Single pixels: too little for torch to share out among threads along the channels.
                yield block[RUNS * whole :].unsqueeze(1)


def _rows(x: Tensor) -> Iterator[Tensor]:
    """[pixels, C] without a copy: of all images at once where they are channels last, image by image otherwise."""
    if _is_channels_last(x):
        yield x.permute(0, 2, 3, 1).flatten(0, 2)
    else:
        for image in x.contiguous():
            yield image.flatten(1).t()


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)
