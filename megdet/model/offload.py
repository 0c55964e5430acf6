"""Feature maps that backward needs, kept in main memory meanwhile.

torch.autograd.graph.save_on_cpu does the same, but gives tensors back in another memory layout than they had
(channels last becomes contiguous), so that convolutions run by other kernels and round otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Parameter


class _Stored(NamedTuple):
    """A map that is in main memory."""

    values: Tensor
    device: torch.device
    """Where it was."""


def offloading() -> saved_tensors_hooks:
    """A context: maps that operations in it save for backward go to main memory, and return when backward needs them.

    Maps are tensors [N, C, H, W] that are no weights; what is smaller stays. A part that is recomputed
    (`megdet.model.sublinear.checkpointed`) saves its input only. Values and memory layout are kept, so gradients are
    bit for bit what they are without. A map that several operations save is stored by each.
    """
    return saved_tensors_hooks(_store, _bring_back)


def _store(tensor: Tensor) -> Tensor | _Stored:
    if tensor.dim() != 4 or isinstance(tensor, Parameter):
        return tensor
    return _Stored(to_main_memory(tensor), tensor.device)


def _bring_back(saved: Tensor | _Stored) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    # Without waiting: torch keeps pinned memory until the copy from it is done.
    return saved.values.to(saved.device, non_blocking=True, copy=True)


def to_main_memory(tensor: Tensor) -> Tensor:
    """A copy in the same layout; pinned where it comes from a GPU, which then need not wait for it."""
    on_gpu = tensor.device.type == "cuda"
    values = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu, requires_grad=False)
    return values.copy_(tensor.detach(), non_blocking=on_gpu)
