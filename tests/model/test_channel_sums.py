"""Sums over the pixels of a channel against float64, and their bits on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.channel_sums import channel_gradients, channel_moments

SHAPES = [(4, 48, 48, 64), (2, 2048, 9, 13), (3, 5, 17, 19), (16, 16, 16, 16), (1, 3, 1, 1), (2, 300, 1, 7)]
FORMATS = [torch.channels_last, torch.contiguous_format]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pixels(shape: tuple[int, ...], *, mean: float, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Channels of different spread, and of rows that differ more than the pixels in them, as features do."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.5, 2.0, shape[1]).view(1, -1, 1, 1)
    rows = torch.randn(shape[0], shape[1], shape[2], 1, generator=generator)
    return ((torch.randn(shape, generator=generator) + 2 * rows) * scale + mean).to(dtype)


def exact(x: Tensor) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    return mean, var


def moment_errors(x: Tensor) -> tuple[float, float]:
    """Of the mean, in standard deviations; and of the variance, relative."""
    (mean, var), (wanted_mean, wanted_var) = channel_moments(x), exact(x)
    return (
        ((mean - wanted_mean).abs() / wanted_var.clamp(min=1e-12).sqrt()).max().item(),
        ((var - wanted_var).abs() / wanted_var.clamp(min=1e-12)).max().item(),
    )


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("mean", [0.0, 1e3])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] * shape[3] > 1])
def test_moments_are_float64s_to_2e_7(shape: tuple[int, ...], mean: float, memory_format: torch.memory_format) -> None:
    errors = moment_errors(pixels(shape, mean=mean, seed=1).contiguous(memory_format=memory_format))
    assert max(errors) < 2e-7, errors


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", FORMATS)
def test_moments_of_sixteen_maps_of_200_x_336_are_float64s_to_1e_6(memory_format: torch.memory_format) -> None:
    errors = moment_errors(pixels((16, 64, 200, 336), mean=3.0, seed=2).contiguous(memory_format=memory_format))
    assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_input_of_other_precisions_is_summed_in_float32_at_least(dtype: torch.dtype) -> None:
    assert max(moment_errors(pixels((4, 48, 24, 32), mean=3.0, seed=3, dtype=dtype))) < 2e-7


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_sums_are_float64s(shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    x = pixels(shape, mean=3.0, seed=4).contiguous(memory_format=memory_format)
    dy = pixels(shape, mean=0.1, seed=5)  # contiguous, whatever x is
    mean = exact(x)[0].float()
    of_dy, of_product = channel_gradients(dy, x, mean)
    product = dy.double() * (x.double() - mean.double().view(1, -1, 1, 1))
    for found, terms in ((of_dy, dy.double()), (of_product, product)):
        wanted, size = terms.sum((0, 2, 3)), terms.abs().sum((0, 2, 3)).clamp(min=1e-12)
        assert ((found - wanted).abs() / size).max().item() < 2e-7


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(4, 48, 48, 64), (2, 2048, 9, 13), (3, 70, 67, 61)])
def test_any_number_of_threads_gives_the_same_bits(
    shape: tuple[int, ...], memory_format: torch.memory_format, threads: None
) -> None:
    x, dy = (pixels(shape, mean=3.0, seed=seed).contiguous(memory_format=memory_format) for seed in (6, 7))
    found = []
    for count in (1, 2, 3, 5, 16):
        torch.set_num_threads(count)
        moments = channel_moments(x)
        found.append(torch.cat([*moments, *channel_gradients(dy, x, moments[0].float())]))
    assert all(torch.equal(sums, found[0]) for sums in found)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_input_gradient_is_float64s_to_1e_5_of_its_largest_value(memory_format: torch.memory_format) -> None:
    shape = (4, 48, 48, 64)
    x, dy = (
        pixels(shape, mean=mean, seed=seed).contiguous(memory_format=memory_format)
        for mean, seed in ((3.0, 8), (0.1, 9))
    )
    reference = torch.nn.BatchNorm2d(shape[1]).double()
    layer = CrossGPUBatchNorm2d(shape[1], bn_size=shape[0])
    gradients = []
    for module, dtype in ((layer, torch.float32), (reference, torch.float64)):
        leaf = x.to(dtype).detach().requires_grad_()
        module(leaf).backward(dy.to(dtype))
        gradients.append((leaf.grad.double(), module.weight.grad.double(), module.bias.grad.double()))
    for found, wanted in zip(*gradients, strict=True):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
