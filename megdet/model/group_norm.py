"""GroupNorm (Wu and He 2018), the norm that needs no batch: what BN sizes are compared with."""

from __future__ import annotations

import math

import torch.distributed as dist
from torch import nn

from megdet.errors import UserError


def group_norm(channels: int, *, bn_size: int, group: dist.ProcessGroup | None, groups: int = 32) -> nn.Module:
    """Torch's GroupNorm of `groups` groups, or as many of them as divide a narrow layer's channels (their gcd).

    `bn_size` and `group` change nothing. Raises UserError if `groups` is below 1.
    """
    if groups < 1:
        raise UserError(f"model.norm.custom.groups={groups}: use at least 1, such as 32")
    return nn.GroupNorm(math.gcd(groups, channels), channels)
