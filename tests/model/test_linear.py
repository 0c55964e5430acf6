"""The linear layer and its gradients against float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from megdet.model.linear import linear


@pytest.mark.parametrize("rows", [0, 1, 37])
def test_values_and_gradients_agree_with_float64(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, 70), (33, 70), (33,))
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    exact = [t.detach().double().requires_grad_() for t in ours]
    gradient = torch.randn(rows, 33, generator=generator)
    result, expected = linear(ours[0], ours[1], ours[2]), F.linear(exact[0], exact[1], exact[2])
    by_onednn = type(result.grad_fn).__name__ == "_OneDNNLinearBackward"
    assert by_onednn == (rows > 0 and torch.backends.mkldnn.is_available())
    result.backward(gradient)
    expected.backward(gradient.double())
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4)
    for mine, its in zip(ours, exact, strict=True):
        assert mine.grad is not None and its.grad is not None
        torch.testing.assert_close(mine.grad.double(), its.grad, rtol=1e-5, atol=1e-4)


def test_autocast_still_computes_in_bfloat16() -> None:
    x, weight, bias = torch.randn(4, 8), torch.randn(3, 8), torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
