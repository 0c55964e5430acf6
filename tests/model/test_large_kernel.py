"""Global convolutions against one dense kernel, and where their norm is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector, build_detector
from megdet.model.large_kernel import GlobalConvolution
from megdet.model.norms import norm_layers
from megdet.model.settings import EvaluationSettings, LargeKernelSettings, ModelSettings
from tests.model.detectors import gradients, random_batch, train_pass
from tests.tiny import tiny_model


def detector_with(bn_in: list[str], *, sublinear: bool = False) -> Detector:
    model = tiny_model()
    model.large_kernel, model.bn_in = LargeKernelSettings(size=5, channels=8), bn_in
    model.check()
    norm = norm_layers(model, bn_size=2, group=None)
    return build_detector(model, EvaluationSettings(), num_classes=4, norm=norm, sublinear=sublinear, seed=0)


def test_both_branches_are_one_dense_kernel_of_rank_two_for_each_pair_of_channels() -> None:
    torch.manual_seed(0)
    module = GlobalConvolution(3, LargeKernelSettings(size=5, channels=4), None).double()
    bias = nn.init.normal_(module.tall_first[1].bias) + nn.init.normal_(module.wide_first[1].bias)
    dense = torch.zeros(3, 3, 5, 5, dtype=torch.float64)
    for branch in (module.tall_first, module.wide_first):
        first, second = branch[0].weight, branch[1].weight
        for row in range(5):
            for column in range(5):
                lines = (row, column) if first.shape[2] == 5 else (column, row)
                dense[:, :, row, column] += second.flatten(2)[:, :, lines[1]] @ first.flatten(2)[:, :, lines[0]]
    x = torch.randn(2, 3, 9, 6, dtype=torch.float64)
    expected = x + F.conv2d(x, dense, bias, padding=2)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


def test_the_inner_maps_are_a_quarter_as_wide_as_the_pyramid_where_nothing_else_is_asked() -> None:
    for asked, found in ((None, 5), (7, 7)):
        module = GlobalConvolution(20, LargeKernelSettings(size=3, channels=asked), None)
        assert {module.tall_first[0].out_channels, module.wide_first[0].out_channels} == {found}


@pytest.mark.parametrize(("bn_in", "layers"), [(["backbone", "fpn"], 0), (["backbone", "fpn", "large_kernel"], 5)])
def test_each_level_has_its_own_with_the_norm_where_it_is_asked_for(bn_in: list[str], layers: int) -> None:
    detector = detector_with(bn_in)
    modules = list(detector.backbone.large_kernel.modules())
    assert sum(isinstance(module, GlobalConvolution) for module in modules) == 5
    assert sum(isinstance(module, CrossGPUBatchNorm2d) for module in modules) == layers
    train_pass(detector, random_batch([(64, 96)] * 2))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(detector).values())


def test_sublinear_memory_gives_the_same_gradients_bit_for_bit() -> None:
    found = []
    for sublinear in (False, True):
        detector = detector_with(["backbone", "fpn", "large_kernel"], sublinear=sublinear)
        train_pass(detector, random_batch([(64, 96)] * 2))
        found.append(gradients(detector))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_makes_no_sense_is_refused_when_planned() -> None:
    with pytest.raises(UserError, match=r"model.large_kernel.size=4: use an odd number, such as 5"):
        ModelSettings(large_kernel=LargeKernelSettings(size=4)).check("model.")
    with pytest.raises(UserError, match=r"model.bn_in has large_kernel, and model.large_kernel.size=null.*such as 15"):
        ModelSettings(bn_in=["backbone", "large_kernel"]).check("model.")
