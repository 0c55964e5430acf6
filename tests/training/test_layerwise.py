"""LARS and LAMB take the steps that their papers write down, and leave vectors alone."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from megdet.errors import UserError
from megdet.training.layerwise import lamb, lars


def parameters_and_gradients() -> tuple[list[Parameter], list[Tensor]]:
    """A matrix and a vector in float64, and their gradients, of a norm below 1 together."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3, 3, 3), (4,))
    parameters, gradients = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) * scale for shape in shapes]
        for scale in (1, 0.05)
    )
    made = [Parameter(value) for value in parameters]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = gradient
    return made, gradients


def test_lars_moves_a_matrix_by_its_own_size_and_a_vector_as_sgd() -> None:
    """You et al. 2017, Algorithm 1, two steps."""
    (matrix, vector), (gradient, small) = parameters_and_gradients()
    optimizer = lars([matrix, vector], lr=0.5, momentum=0.9, weight_decay=0.01, trust_coefficient=0.001)
    weights, expected_vector = matrix.detach().clone(), vector.detach().clone()
    velocity, vector_velocity = torch.zeros_like(weights), torch.zeros_like(expected_vector)
    for _ in range(2):
        optimizer.step()
        rate = 0.001 * weights.norm() / (gradient.norm() + 0.01 * weights.norm())
        velocity = 0.9 * velocity + rate * (gradient + 0.01 * weights)
        weights = weights - 0.5 * velocity
        vector_velocity = 0.9 * vector_velocity + small
        expected_vector = expected_vector - 0.5 * vector_velocity
    torch.testing.assert_close(matrix.detach(), weights, rtol=1e-7, atol=0)  # timm has an epsilon of 1e-8
    torch.testing.assert_close(vector.detach(), expected_vector, rtol=1e-12, atol=0)


def test_lamb_moves_a_matrix_by_its_own_size_and_a_vector_as_adam() -> None:
    """You et al. 2020, Algorithm 2, with the bias correction of Adam, one step."""
    (matrix, vector), (gradient, small) = parameters_and_gradients()
    optimizer = lamb([matrix, vector], lr=0.5, weight_decay=0.01)
    before, vector_before = matrix.detach().clone(), vector.detach().clone()
    optimizer.step()
    update = gradient / (gradient.abs() + 1e-6) + 0.01 * before
    expected = before - 0.5 * before.norm() / update.norm() * update
    torch.testing.assert_close(matrix.detach(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        vector.detach(), vector_before - 0.5 * small / (small.abs() + 1e-6), rtol=1e-9, atol=1e-12
    )


def test_without_timm_the_way_to_get_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'megdet\[optimizers\]'"):
        lamb(parameters_and_gradients()[0], lr=0.1, weight_decay=0.0)
