"""The variance of means of gradients, against NumPy on the whole of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from megdet.errors import UserError
from megdet.model.settings import LargeKernelSettings, SegmentationSettings
from megdet.studies.gradient_variance import GROUPS, GroupMeans, gradients_of, variances, verdict
from megdet.studies.jackknife import Projection, ratio_error
from tests.ranks import run_ranks
from tests.tiny import tiny_detector, tiny_loader, tiny_model


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_streamed_variance_is_that_of_the_group_means_within_their_epochs(k: int) -> None:
    epochs = np.random.default_rng(0).normal(3.0, 2.0, size=(2, 18, 50)).astype(np.float32)
    epochs[1] += 5  # of no account
    stream = GroupMeans(k)
    squares, degrees = 0.0, 0
    for vectors in epochs:
        for vector in vectors:
            stream.add(torch.from_numpy(vector))
        stream.end_epoch()
        groups = len(vectors) // k
        means = vectors[: groups * k].astype(np.float64).reshape(groups, k, 50).mean(1)
        squares += float(means.var(axis=0, ddof=1).sum()) * (groups - 1)
        degrees += groups - 1
    assert stream.degrees == degrees
    assert stream.variance() == pytest.approx(squares / degrees, rel=1e-4)


def test_independent_vectors_have_a_variance_that_falls_as_1_over_k() -> None:
    generator = torch.Generator().manual_seed(0)
    found = variances((0, {"a": torch.randn(2000, generator=generator)}) for _ in range(256))
    for k in GROUPS:
        assert found["a"][k]["variance"] == pytest.approx(2000 / k, rel=0.1)
        assert found["a"][k]["ratio"] == pytest.approx(1, abs=0.1)
    assert found["all"] == found["a"] and verdict(found["all"]).startswith("Var(grad) falls as 1/k")


def test_vectors_that_go_together_have_a_variance_that_does_not_fall() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = (torch.randn(500, generator=generator) for _ in range(16))
    found = variances((0, {"a": one + torch.randn(500, generator=generator)}) for one in shared for _ in range(16))["a"]
    # Of the variance 2 of one, 1 is the same in each group of 16: k x (1 + 1 / 16) / 2.
    assert found[16]["ratio"] == pytest.approx(8.5, rel=0.2) and "does not fall" in verdict(found)


@pytest.mark.parametrize("heavy", [False, True])
def test_the_standard_error_is_how_much_the_ratio_scatters_over_repetitions(heavy: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def once() -> dict[str, float]:
        # Few coordinates count, so that the variance itself is uncertain.
        scale = torch.tensor([10.0, 5.0, *[0.1] * 20])
        vectors = (torch.randn(22, generator=generator) * scale for _ in range(64))
        if heavy:
            vectors = (vector * torch.rand((), generator=generator).add(0.5) for vector in vectors)
        return variances((0, {"a": vector}) for vector in vectors)["a"][8]

    found = [once() for _ in range(60)]
    scatter = np.std([one["ratio"] for one in found], ddof=1)
    assert np.mean([one["error"] for one in found]) == pytest.approx(scatter, rel=0.4)


def draws(kind: str, generator: torch.Generator) -> list[torch.Tensor]:
    """64 gradients of ten coordinates; of heavy tails, a few are many times as long as the others."""
    vectors = torch.randn(64, 10, generator=generator)
    length = {"normal": 1.0, "heavy": torch.randn(64, 1, generator=generator).mul(1.2).exp()}[kind]
    return list(vectors * length + 3)


@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_two_standard_errors_cover_the_truth_as_often_as_they_should_and_are_not_much_wider(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    found = [variances((0, {"a": vector}) for vector in draws(kind, generator))["a"] for _ in range(150)]
    for k in (2, 4, 8):
        ratios, errors = (np.array([by_k[k][name] for by_k in found]) for name in ("ratio", "error"))
        assert 0.85 <= np.mean(np.abs(ratios - 1) < 2 * errors) <= 1, k
        assert 0.7 < np.sqrt(np.mean(errors**2) / np.mean((ratios - 1) ** 2)) < 1.5, k


def test_the_error_is_the_jackknifes_by_its_definition_over_several_epochs() -> None:
    epochs = [torch.randn(n, 7, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (13, 8, 3)]

    def ratio(parts: list[np.ndarray], means: list[np.ndarray]) -> float:
        squares = [sum(((v - v.mean(0)) ** 2).sum() for v in each if len(v)) for each in (means, parts)]
        degrees = [sum(len(v) - 1 for v in each if len(v)) for each in (means, parts)]
        return 4 * (squares[0] / degrees[0]) / (squares[1] / degrees[1])

    arrays = [epoch.numpy() for epoch in epochs]
    means = [v[: len(v) // 4 * 4].reshape(-1, 4, 7).mean(1) for v in arrays]
    without = [
        ratio(
            [np.delete(v, range(4 * g, 4 * g + 4), 0) if e == n else v for n, v in enumerate(arrays)],
            [np.delete(v, g, 0) if e == n else v for n, v in enumerate(means)],
        )
        for e, of_epoch in enumerate(means)
        for g in range(len(of_epoch))
    ]
    expected = np.sqrt((len(without) - 1) * np.var(without))
    assert ratio_error(epochs, 4) == pytest.approx(expected, rel=1e-9)


def test_a_projection_keeps_squared_distances() -> None:
    vectors = torch.randn(20, 300_000, generator=torch.Generator().manual_seed(2))
    project = Projection(300_000)
    found = torch.stack([project(vector) for vector in vectors])
    assert torch.allclose(torch.pdist(found), torch.pdist(vectors).double(), rtol=0.05)


def test_two_epochs_of_a_small_data_set_do_not_make_the_ratio_too_small() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(30):
        images = torch.from_numpy(rng.normal(size=(32, 200)))
        order = [(epoch, place) for epoch in range(2) for place in rng.permutation(32)]
        ratios.append(variances((epoch, {"a": images[place]}) for epoch, place in order)["a"][16]["ratio"])
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_the_variances_of_the_modules_add_up_to_that_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    joined = [torch.randn(30, generator=generator) for _ in range(8)]
    parts = variances((0, {"a": vector[:10], "b": vector[10:]}) for vector in joined)
    whole = variances((0, {"a": vector}) for vector in joined)["a"]
    assert parts["all"][2] == pytest.approx(whole[2], rel=1e-5)
    assert 2 in whole and 4 not in whole, "eight vectors make two groups of four: no telling how sure their variance is"


def test_gradients_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(UserError, match="all the same"):
        variances((0, {"a": torch.ones(10)}) for _ in range(8))


def gradients_beside_a_training_step(root: Path) -> list[torch.Tensor]:
    """The mean of two BN batches' gradients, and the gradient of the loss of both together."""
    model = tiny_model()
    model.large_kernel, model.segmentation = LargeKernelSettings(size=3), SegmentationSettings(weight=0.1)
    detector = tiny_detector(bn_size=4, model=model)
    loader = tiny_loader(root, batch=8, bn_size=4, images_per_gpu=4, accumulation=2)
    batches = next(loader.epoch(0)).image_batches
    gradients = gradients_of(detector, [(0, batch) for batch in batches], torch.device("cpu"))
    first, second = (torch.cat(list(gradient.values())) for _, gradient in gradients)
    detector.zero_grad()
    (sum(sum(detector(batch).losses.values()) for batch in batches) / 8).backward()
    # In the order of the modules: all that is trained, whatever it is part of.
    whole = torch.cat([p.grad.flatten() for p in detector.parameters() if p.grad is not None])
    return [(first + second) / 2, whole]


def test_the_mean_of_the_gradients_is_the_gradient_of_the_step(shapes_root: Path) -> None:
    ((mean, whole),) = run_ranks(1, gradients_beside_a_training_step, shapes_root)
    assert torch.allclose(mean, whole, rtol=1e-4, atol=1e-6)
