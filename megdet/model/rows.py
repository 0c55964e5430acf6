"""A feature pyramid as rows of one table, and weighted sums of rows.

What a detector reads sparsely from its feature maps (RoI pooling, the surroundings of sampled anchors) is a
product S @ table with a sparse S; the gradient is S^T @ grad. Both run as `embedding_bag`, which adds in a
fixed order: the result depends neither on threads nor on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from megdet.model.wide import wide_dtype


@dataclass(frozen=True)
class RowSums:
    """Row r of the result is the sum of weights[k] * table[columns[k]] for k in offsets[r]:offsets[r + 1]."""

    columns: Tensor
    """int32 [n]."""
    offsets: Tensor
    """int32 [rows + 1], from 0 to n."""
    weights: Tensor
    """float32 [n]."""


def pyramid_rows(features: Sequence[Tensor]) -> Tensor:
    """[sum of N*H*W over the levels, C]: level by level, image by image, in reading order.

    `features` are [N, C, H, W] of any floating dtype, the rows float32 at least. Channels-last ones are copied once.
    """
    return _PyramidRows.apply(*features)  # type: ignore[no-any-return]


def sum_rows(table: Tensor, sums: RowSums) -> Tensor:
    """[rows, C] in the dtype of `table`; differentiable in it, and in the weights where they require it."""
    return _SumRows.apply(table, sums.columns, sums.offsets, sums.weights.to(table.dtype))  # type: ignore[no-any-return]


def expanded(counts: Tensor) -> tuple[Tensor, Tensor]:
    """`counts[i]` copies of each i, and the number of each copy: for [2, 3], [0, 0, 1, 1, 1] and [0, 1, 0, 1, 2]."""
    each = torch.repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return each, torch.arange(len(each), device=counts.device) - before[each]


class _PyramidRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *features: Tensor) -> Tensor:
        channels = features[0].shape[1]
        ctx.shapes = [f.shape for f in features]  # type: ignore[attr-defined]
        ctx.dtypes = [f.dtype for f in features]  # type: ignore[attr-defined]
        rows = [f.shape[0] * f.shape[2] * f.shape[3] for f in features]
        table = features[0].new_empty((sum(rows), channels), dtype=wide_dtype(features[0].dtype))
        for part, feature in zip(table.split(rows), features, strict=True):
            n, c, h, w = feature.shape
            part.view(n, h, w, c).copy_(feature.permute(0, 2, 3, 1))
        return table

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        shapes: list[torch.Size] = ctx.shapes  # type: ignore[attr-defined]
        dtypes: list[torch.dtype] = ctx.dtypes  # type: ignore[attr-defined]
        parts = grad.split([n * h * w for n, _, h, w in shapes])
        return tuple(
            part.to(dtype).view(n, h, w, c).permute(0, 3, 1, 2)
            for part, dtype, (n, c, h, w) in zip(parts, dtypes, shapes, strict=True)
        )


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, table: Tensor, columns: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        of_weights = ctx.needs_input_grad[3]  # type: ignore[attr-defined]
        ctx.save_for_backward(columns, offsets, weights, *([table] if of_weights else []))
        ctx.num_columns = table.shape[0]  # type: ignore[attr-defined]
        return _bag_sums(table, columns, offsets, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        columns, offsets, weights, *table = ctx.saved_tensors  # type: ignore[attr-defined]
        num_columns: int = ctx.num_columns  # type: ignore[attr-defined]
        counts = offsets.diff()
        rows = torch.repeat_interleave(
            torch.arange(len(counts), dtype=torch.int32, device=grad.device), counts, output_size=len(columns)
        )
        order = columns.argsort(stable=True)
        per_column = columns.bincount(minlength=num_columns)
        column_offsets = F.pad(per_column.cumsum(0, dtype=torch.int32), (1, 0))
        of_table = _bag_sums(grad.contiguous(), rows[order], column_offsets, weights[order])
        of_weights = (grad[rows] * table[0][columns]).sum(1) if table else None
        return of_table, None, None, of_weights


def _bag_sums(table: Tensor, columns: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    if len(columns) == 0:
        return table.new_zeros((len(offsets) - 1, table.shape[1]))
    return F.embedding_bag(columns, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
