"""How numbers are rounded: the same on every device, unless asked for otherwise."""

from __future__ import annotations

import torch


def use_precision(precision: str) -> bool:
    """Make `fp32`, `tf32` or `bf16` hold for this process; whether training is to run under bf16 autocast.

    torch lets convolutions on recent GPUs round their float32 inputs to 10 bits (TF32) by default. CPUs and older GPUs
    do not, so `fp32` would mean another thing on each: here it is IEEE float32 everywhere, and `tf32` is the default
    of torch.
    """
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = rounding  # type: ignore[attr-defined]  # not in the stubs
    torch.backends.cuda.matmul.fp32_precision = rounding
    return precision == "bf16"
