"""Float32 at least: what half-precision values become where sums, logits and boxes need more.

A float64 detector stays float64 throughout: the reference that the tests hold float32 to.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32, or a wider floating dtype as it is."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or in its own wider dtype."""
    return x.to(wide_dtype(x.dtype))
