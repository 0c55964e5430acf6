"""The variance of means of gradients, against NumPy on the whole of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from megdet.gradient_variance import GROUPS, MODULES, GroupMeans, gradients_of, variances
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_streamed_variance_is_that_of_the_group_means(k: int) -> None:
    vectors = np.random.default_rng(0).normal(3.0, 2.0, size=(18, 50)).astype(np.float32)
    stream = GroupMeans(k)
    for vector in vectors:
        stream.add(torch.from_numpy(vector))
    groups = len(vectors) // k
    means = vectors[: groups * k].astype(np.float64).reshape(groups, k, 50).mean(1)
    assert stream.groups == groups
    assert stream.variance() == pytest.approx(means.var(axis=0, ddof=1).sum(), rel=1e-4)


def test_independent_vectors_have_a_variance_that_falls_as_1_over_k_and_equal_ones_none() -> None:
    generator = torch.Generator().manual_seed(0)
    found = variances({"all": torch.randn(2000, generator=generator)} for _ in range(256))["all"]
    for k in GROUPS:
        assert found[k] == pytest.approx(2000 / k, rel=0.1)
    assert variances({"all": torch.ones(10)} for _ in range(8))["all"][2] == pytest.approx(0.0, abs=1e-9)
    assert variances({"all": torch.ones(10)} for _ in range(8))["all"][8] is None


def gradients_beside_a_training_step(root: Path) -> list[torch.Tensor]:
    """The mean of two BN batches' gradients, and the gradient of the loss of both together."""
    detector = tiny_detector(bn_size=4)
    loader = tiny_loader(root, batch=8, bn_size=4, images_per_gpu=4, accumulation=2)
    batches = [batch for one_pass in next(loader.epoch(0)) for batch in one_pass]
    first, second = gradients_of(detector, batches, torch.device("cpu"))
    detector.zero_grad()
    (sum(sum(detector(batch).losses.values()) for batch in batches) / 8).backward()
    whole = torch.cat([p.grad.flatten() for module in MODULES for p in detector.get_submodule(module).parameters()])
    return [(first["all"] + second["all"]) / 2, whole]


def test_the_mean_of_the_gradients_is_the_gradient_of_the_step(shapes_root: Path) -> None:
    ((mean, whole),) = run_ranks(1, gradients_beside_a_training_step, shapes_root)
    assert torch.allclose(mean, whole, rtol=1e-4, atol=1e-6)
