"""Peak memory of training."""

from __future__ import annotations

import resource

import torch
import torch.distributed as dist


def peak_memory_gb(device: torch.device) -> float:
    """The most memory in use so far on the fullest rank: allocated on a GPU, resident on a CPU; 1 GB = 2^30 bytes."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
    else:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.tensor(used / 2**30, device=device)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    return peak.item()
