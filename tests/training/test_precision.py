"""What `precision` means, the same on every device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from megdet.training.precision import use_precision


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = rounding()
    yield
    torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before


def rounding() -> tuple[str, str]:
    """Of float32 inputs, in convolutions and in matrix products on GPUs."""
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision


@pytest.mark.parametrize(
    ("precision", "of_float32", "autocast"), [("fp32", "ieee", False), ("tf32", "tf32", False), ("bf16", "ieee", True)]
)
def test_float32_is_rounded_to_ten_bits_only_where_that_was_asked_for(
    precision: str, of_float32: str, autocast: bool
) -> None:
    other = "ieee" if of_float32 == "tf32" else "tf32"
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = other
    assert use_precision(precision) is autocast
    assert rounding() == (of_float32, of_float32)
