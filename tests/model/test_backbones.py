"""The backbones' own parts: the frozen batch norm and the shapes of the pyramid."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50, resnext50_32x4d
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms.functional import pil_to_tensor

from megdet.errors import UserError
from megdet.model.backbones import BackboneWithFPN, build_backbone
from megdet.model.detector import IMAGE_MEAN, IMAGE_STD
from megdet.model.efficientnet_lite import OUTPUT_SCALE, ReLU6, from_published
from megdet.model.norms import FusedFrozenBatchNorm2d
from megdet.model.settings import BackboneSettings, FPNSettings, pyramid_strides
from megdet.model.weights import path_of


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


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "seresnext50_32x4d", "efficientnet_lite0", "tiny"])
def test_the_pyramid_has_strides_4_to_64(name: str) -> None:
    body = build_backbone(BackboneSettings(name=name), nn.BatchNorm2d)
    backbone = BackboneWithFPN(body, FPNSettings(channels=8), norm=nn.BatchNorm2d, sublinear=False)
    levels = backbone.eval()(torch.randn(2, 3, 64, 128))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 64 // s, 128 // s) for s in (4, 8, 16, 32, 64)]


def test_resnext_is_torchvisions_under_its_names() -> None:
    theirs = resnext50_32x4d(weights=None).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ours = build_backbone(BackboneSettings(name="resnext50_32x4d"), nn.BatchNorm2d)
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = ours.eval()(images, sublinear=False)[-1]
        assert torch.equal(theirs.fc(last.mean(dim=(2, 3))), theirs(images))


def test_se_resnext_has_timms_parameters_and_weighs_the_channels_of_each_block() -> None:
    body = build_backbone(BackboneSettings(name="seresnext50_32x4d"), nn.BatchNorm2d)
    classifier = 2048 * 1000 + 1000
    assert sum(p.numel() for p in body.parameters()) + classifier == 27_559_896  # as timm counts seresnext50_32x4d
    names = {"conv1.weight", "layer1.0.se.fc1.weight", "layer4.2.se.fc2.bias", "layer2.0.downsample.0.weight"}
    assert names < body.state_dict().keys()
    block = body.layer2[1].eval()
    x = torch.randn(2, 512, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = block.bn3(block.conv3(block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()))
        squeezed = plain.mean(dim=(2, 3))
        hidden = (squeezed @ block.se.fc1.weight[:, :, 0, 0].T + block.se.fc1.bias).relu()
        weight = torch.sigmoid(hidden @ block.se.fc2.weight[:, :, 0, 0].T + block.se.fc2.bias)
        torch.testing.assert_close(block(x), (plain * weight[:, :, None, None] + x).relu())


# Class of ImageNet and its probability, as efficientnet-lite-pytorch 0.1.0 computes them from these weights: an
# espresso, a moped, a daisy and a tripod.
KNOWN = {
    ("skimage", "data/coffee.png"): (967, 0.95),
    ("skimage", "data/motorcycle_left.png"): (665, 0.48),
    ("sklearn", "datasets/images/flower.jpg"): (985, 0.36),
    ("skimage", "data/camera.png"): (872, 0.94),
}


def test_efficientnet_lites_packaged_weights_know_what_is_on_photographs() -> None:
    weights = path_of("imagenet", "efficientnet_lite0")
    assert weights is not None
    published = torch.load(weights, weights_only=True)
    body = build_backbone(BackboneSettings(name="efficientnet_lite0"), FusedFrozenBatchNorm2d).eval()
    body.load_state_dict(from_published(published, IMAGE_MEAN, IMAGE_STD), strict=False)
    normalised = (torch.tensor(IMAGE_MEAN)[:, None, None], torch.tensor(IMAGE_STD)[:, None, None])
    for (package, name), (expected, probability) in KNOWN.items():
        with Image.open(Path(import_module(package).__path__[0]) / name) as picture, torch.no_grad():
            scale = 256 / min(picture.size)
            resized = picture.convert("RGB").resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
            )
            left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
            image = pil_to_tensor(resized.crop((left, top, left + 224, top + 224))) / 255
            outputs = body(((image - normalised[0]) / normalised[1])[None], sublinear=False)
            # As a ResNet's: a pyramid without norms learns at the same rate.
            assert all(0.2 < float(output.std()) < 2.5 for output in outputs), name
            head = functional.conv2d(outputs[-1] / OUTPUT_SCALE, published["_conv_head.weight"])
            head = functional.batch_norm(
                head,
                *(published[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")),
                eps=1e-3,
            )
            logits = functional.relu6(head).mean((2, 3)) @ published["_fc.weight"].T + published["_fc.bias"]
        found = logits.softmax(1)[0]
        assert int(found.argmax()) == expected and float(found.max()) == pytest.approx(probability, abs=0.02), name


def test_relu6_has_torchs_values_and_gradients_and_keeps_one_map_for_backward() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 6
    x[0, 0, 0, :4] = torch.tensor([0.0, 6.0, -0.0, torch.inf])
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    kept: list[torch.Tensor] = []
    found = []
    for relu6 in (ReLU6(), functional.relu6):
        leaf = x.clone().requires_grad_()
        between = leaf * 1
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            y = relu6(between)
            y.sin()  # keeps its input, as a convolution does
        y.backward(dy)
        found.append((y.detach(), leaf.grad, len({t.data_ptr() for t in kept})))
        kept.clear()
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert (found[0][2], found[1][2]) == (1, 2)


def test_the_atrous_last_stage_is_torchvisions_and_takes_the_weights_of_the_ordinary_one() -> None:
    theirs = resnet50(weights=None, replace_stride_with_dilation=[False, False, True]).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ordinary = build_backbone(BackboneSettings(name="resnet50"), nn.BatchNorm2d)
    assert {name: value.shape for name, value in ordinary.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    ours = build_backbone(BackboneSettings(name="resnet50", atrous=True), nn.BatchNorm2d)
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    stages = IntermediateLayerGetter(theirs, {f"layer{number}": str(number) for number in (1, 2, 3, 4)})
    with torch.no_grad():
        found, expected = ours.eval()(images, sublinear=False), list(stages(images).values())
    assert [tuple(output.shape[2:]) for output in found] == [(16, 24), (8, 12), (4, 6), (4, 6)]
    for output, wanted in zip(found, expected, strict=True):
        assert torch.equal(output, wanted)


@pytest.mark.parametrize("name", ["resnet50", "tiny"])
def test_an_atrous_pyramid_has_strides_4_to_32(name: str) -> None:
    settings = BackboneSettings(name=name, atrous=True)
    backbone = BackboneWithFPN(
        build_backbone(settings, nn.BatchNorm2d), FPNSettings(channels=8), norm=nn.BatchNorm2d, sublinear=False
    )
    levels = backbone.eval()(torch.randn(2, 3, 64, 128))
    strides = pyramid_strides(settings.strides)
    assert strides == (4, 8, 16, 16, 32)
    assert [tuple(level.shape) for level in levels] == [(2, 8, 64 // s, 128 // s) for s in strides]


@pytest.mark.parametrize(
    "settings",
    [
        BackboneSettings(name="resnet18", atrous=True),
        BackboneSettings(name="mine", weights="none", frozen_stages=0, atrous=True, custom={"_target_": "a.B"}),
    ],
)
def test_a_backbone_that_cannot_be_dilated_is_refused_when_planned(settings: BackboneSettings) -> None:
    with pytest.raises(UserError, match=rf"model.backbone.atrous=true with model.backbone.name={settings.name}.*false"):
        settings.check("model.backbone.")
