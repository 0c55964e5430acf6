"""Where half precision ends: losses, scores and boxes are computed in float32, or in float64 where a check asks so."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself unless it is in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
