"""Cross-GPU Batch Normalization (paper section 3.3, Algorithm 1): the statistics of `bn_size` images.

The images of a BN batch may lie on several GPUs, or be a part of those of one GPU.

There is no single definition of synchronised BN; this is the one here. Statistics are over all pixels of all
images of a BN batch, so images count by their (padded) pixels and the result is what one process would get
from the joined batch. Each rank sends (mean, variance, pixel count) in one collective and
all ranks combine them exactly (Chan et al. 1979), which keeps the precision of Algorithm 1's two passes:
sums of squares would lose the variance of activations with a large mean. Backward is one all-reduce of
(sum dy, sum dy * xhat). What is summed and sent is float64 (`megdet.model.channel_sums`), rounded once at the end, so
that a BN batch has the same statistics however it lies on ranks.

torch.nn.SyncBatchNorm is not used because it refuses CPU tensors, has no BN batch smaller than a rank's share, and
updates its running statistics once per forward pass, which makes them depend on the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from megdet.model.channel_sums import channel_gradients, channel_moments
from megdet.model.sublinear import BatchStatistics, current_tape
from megdet.model.wide import wide_dtype


class CrossGPUBatchNorm2d(nn.Module):
    """Batch normalisation over runs of `bn_size` images, shared by the ranks of a group where need be.

    Input and output: [N, C, H, W], any float dtype, statistics in float32 at least. Parameters and buffers are
    named as in `nn.BatchNorm2d`, so its checkpoints load.

    - `group` of several ranks: the N images of this pass on every rank of the group form one BN batch, so N is
      `bn_size` / ranks. H and W may differ by rank. Every rank of the group must call the layer equally often.
    - no `group`: each run of `bn_size` images is a BN batch of its own; N must be a multiple of `bn_size`.

    In training `running_mean` and `running_var` do not move until `update_running_statistics(model)`, once
    per optimizer step. In evaluation they normalise, as in `nn.BatchNorm2d`.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        bn_size: int,
        group: dist.ProcessGroup | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.bn_size = bn_size
        self.group = group
        self.ranks = dist.get_world_size(group) if group is not None else 1
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self.step_batches: list[BatchStatistics] = []
        """The BN batches since the last optimizer step."""

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, bn_size={self.bn_size}, ranks={self.ranks}, eps={self.eps}, momentum={self.momentum}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`.

        Raises:
            ValueError: when the N images of every rank of the group are not `bn_size` together, or, without a group,
                when N is no multiple of `bn_size`.
        """
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        images = len(x)
        if self.group is not None:
            if self.ranks * images != self.bn_size:
                raise ValueError(
                    f"{self.ranks} ranks with {images} images in this pass are BN batches of {self.ranks * images} "
                    f"images, not of bn_size={self.bn_size}"
                )
            return self.normalise(x)
        if images % self.bn_size:
            raise ValueError(f"{images} images cannot be split into BN batches of bn_size={self.bn_size}")
        if images == self.bn_size:
            return self.normalise(x)
        return torch.cat([self.normalise(run) for run in x.split(self.bn_size)])

    def normalise(self, x: Tensor) -> Tensor:
        """`x` as (this rank's part of) one BN batch, of any size: N, H, W may differ by rank and N may be 0."""
        tape = current_tape()
        if tape is not None and tape.is_replaying:
            statistics = tape.next()
        else:
            with torch.no_grad():
                statistics = batch_statistics(x.detach(), self.group)
            self.step_batches.append(statistics)
            if tape is not None:
                tape.append(statistics)
        y = _Normalise.apply(x, self.weight, self.bias, *statistics, self.eps, self.group)
        assert isinstance(y, Tensor)
        return y

    def take_step_statistics(self) -> Tensor:
        """[2C + 1]: sums over the BN batches since the last call of mean and unbiased variance, and their number."""
        return _take_step_statistics([self])


def update_running_statistics(model: nn.Module) -> None:
    """Move every CGBN layer's running statistics by one step; call once per optimizer step, on every rank.

    The step's value is the mean over all BN batches of the step: every group, every split, every accumulated pass of
    every rank, so the result is the same on every layout and on every rank. One flat all-reduce for the whole model;
    layer by layer the update would be a thousand small operations.
    """
    layers = [m for m in model.modules() if isinstance(m, CrossGPUBatchNorm2d) and m.training]
    if not layers:
        return
    with torch.no_grad():
        total = _take_step_statistics(layers)
        if dist.is_initialized():
            dist.all_reduce(total)
        widths = [2 * layer.num_features + 1 for layer in layers]
        counts = [part[-1:] for part in total.split(widths)]
        counts_there = torch.cat([count.expand(width) for count, width in zip(counts, widths, strict=True)])
        # No BN batch at all (a layer that was not used) leaves the averages where they are.
        momenta = [total.new_full((1,), layer.momentum).expand(2 * layer.num_features + 1) for layer in layers]
        momenta_there = torch.cat(momenta) * (counts_there > 0)
        rest = total.new_zeros(1)
        running = [value for layer in layers for value in (layer.running_mean, layer.running_var, rest)]
        moved = torch.cat(running).lerp_(total / counts_there.clamp(min=1), momenta_there)
        torch._foreach_copy_(running, moved.split([len(value) for value in running]))
        torch._foreach_add_([layer.num_batches_tracked for layer in layers], 1)


def _take_step_statistics(layers: Sequence[CrossGPUBatchNorm2d]) -> Tensor:
    """`take_step_statistics` of each layer, one after the other in one tensor."""
    like = layers[0].running_mean
    one, total = like.new_ones(1), like.new_zeros(sum(2 * layer.num_features + 1 for layer in layers))
    for number in range(max(len(layer.step_batches) for layer in layers)):
        seen = [layer.step_batches[number] if number < len(layer.step_batches) else None for layer in layers]
        pixels = torch.stack([batch.pixels for batch in seen if batch is not None])
        unbiased = iter((pixels / (pixels - 1).clamp(min=1)).to(like.dtype).split(1))
        values, factors = [], []
        for layer, batch in zip(layers, seen, strict=True):
            channels = layer.num_features
            if batch is None:
                values.append(like.new_zeros(2 * channels + 1))
                factors.append(one.expand(2 * channels + 1))
            else:
                values += [batch.mean, batch.var, one]
                factors += [one.expand(channels), next(unbiased).expand(channels), one]
        total += torch.cat(values) * torch.cat(factors)
    for layer in layers:
        layer.step_batches.clear()
    return total


def batch_statistics(x: Tensor, group: dist.ProcessGroup | None) -> BatchStatistics:
    """Mean, biased variance and pixel count of `x` [N, C, H, W] joined over the ranks of `group`; one all-gather."""
    channels = x.shape[1]
    mean, var = channel_moments(x)
    # Filled on the device: a number sent there would have the host wait for the GPU, at every layer.
    pixels = mean.new_full((1,), float(x.numel() // channels))
    if group is not None:
        own = torch.cat([mean, var, pixels])
        parts = own.new_empty(dist.get_world_size(group) * own.numel())
        dist.all_gather_into_tensor(parts, own, group=group)
        of_rank = parts.view(-1, own.numel())
        means, variances, counts = of_rank.split([channels, channels, 1], dim=1)
        pixels = counts.sum(0)
        weights = counts / pixels.clamp(min=1)
        mean = (weights * means).sum(0)
        var = (weights * (variances + (means - mean).square())).sum(0)
    dtype = wide_dtype(x.dtype)
    return BatchStatistics(mean.to(dtype), var.to(dtype), pixels[0])


def scaled(x: Tensor, scale: Tensor, shift: Tensor, centre: Tensor) -> Tensor:
    """scale * (x - centre) + shift in one pass, for x [N, C, H, W] and the others [C]."""
    # Not F.batch_norm, which some versions of torch do not let have eps = 0.
    return torch.batch_norm(x, scale, shift, centre, torch.ones_like(centre), False, 0.0, 0.0, False)


class _Normalise(torch.autograd.Function):
    """y = weight * (x - mean) / sqrt(var + eps) + bias with the statistics of the joined BN batch."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        pixels: Tensor,
        eps: float,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var, pixels)
        ctx.eps, ctx.group = eps, group
        if x.numel() == 0:
            return torch.empty_like(x)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight, mean, var, pixels = ctx.saved_tensors
        invstd = torch.rsqrt(var.double() + ctx.eps)
        sum_dy, sum_dy_deviation = channel_gradients(dy, x, mean)
        sums = torch.cat([sum_dy, sum_dy_deviation * invstd])
        dbias, dweight = (values.to(weight.dtype, copy=True) for values in sums.chunk(2))  # this rank's own
        if ctx.group is not None:
            dist.all_reduce(sums, group=ctx.group)
        # dx = weight * invstd * (dy - sum(dy)/n - xhat * sum(dy*xhat)/n) = a * dy + b * (x - mean) + c
        mean_dy, mean_dy_xhat = (sums / pixels).chunk(2)
        scale = weight * invstd
        a, b, c = (v.to(mean.dtype) for v in (scale, -scale * invstd * mean_dy_xhat, -scale * mean_dy))
        if x.numel() == 0:
            dx = torch.zeros_like(x)
        else:
            # One fused pass for b * (x - mean) + c, one for a * dy on top of it.
            dx = scaled(x, b, c, mean)
            dx.addcmul_(dy, a.to(dy.dtype).view(1, -1, 1, 1))
        return dx, dweight, dbias, None, None, None, None, None
