"""The backbones' own parts: the frozen batch norm and the shapes of the pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from megdet.model.backbones import BackboneWithFPN, build_backbone
from megdet.model.norms import FusedFrozenBatchNorm2d
from megdet.model.settings import BackboneSettings, FPNSettings


def test_the_fused_frozen_norm_is_torchvisions_and_keeps_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(8, generator=generator) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")
    }
    ours, theirs = FusedFrozenBatchNorm2d(8), FrozenBatchNorm2d(8)
    ours.load_state_dict(state)
    theirs.load_state_dict(state)
    x = torch.randn(2, 8, 5, 7, generator=generator).requires_grad_()
    torch.testing.assert_close(ours(x), theirs(x))
    weight = torch.randn(2, 8, 5, 7, generator=generator)
    gradients = [torch.autograd.grad((norm(x) * weight).sum(), x)[0] for norm in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    low = ours(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), theirs(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["resnet18", "tiny"])
def test_the_pyramid_has_strides_4_to_64(name: str) -> None:
    body = build_backbone(BackboneSettings(name=name), nn.BatchNorm2d)
    backbone = BackboneWithFPN(body, FPNSettings(channels=8), norm=nn.BatchNorm2d, sublinear=False)
    levels = backbone.eval()(torch.randn(2, 3, 64, 128))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 64 // s, 128 // s) for s in (4, 8, 16, 32, 64)]
