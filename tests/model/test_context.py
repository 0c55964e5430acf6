"""The context extractor against a slow reading of the same levels, region by region."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from megdet.errors import UserError
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.context import ContextExtractor, enlarge
from megdet.model.detector import build_detector
from megdet.model.norms import norm_layers
from megdet.model.settings import ContextSettings, EvaluationSettings, ModelSettings, RoIPoolSettings
from tests.model.detectors import detect, gradients, random_batch, train_pass
from tests.model.test_precise_roi_pool import STRIDES, level_of
from tests.tiny import tiny_model

CHANNELS, NARROW = 6, 3
BOXES = torch.tensor(
    [[5.0, 8.0, 40.0, 30.0], [0.0, 0.0, 250.0, 200.0], [10.0, 20.0, 400.0, 300.0], [30.0, 5.0, 610.0, 460.0]]
)
"""One for each level, and three of them reach out of their image when they are enlarged."""
IMAGES = torch.tensor([0, 1, 0, 1])


@pytest.fixture
def extractor() -> ContextExtractor:
    torch.manual_seed(0)
    settings = ContextSettings(scale=2.0, channels=NARROW)
    return ContextExtractor(CHANNELS, settings, RoIPoolSettings(), strides=STRIDES, norm=nn.BatchNorm2d)


@pytest.fixture
def features() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, CHANNELS, 480 // s, 640 // s, generator=generator, requires_grad=True) for s in STRIDES]


def one_by_one(extractor: ContextExtractor, features: list[Tensor]) -> Tensor:
    maps = [narrow(feature) for narrow, feature in zip(extractor.narrow, features, strict=True)]
    joined = []
    for box, image in zip(BOXES, IMAGES, strict=True):
        x1, y1, x2, y2 = box.tolist()
        width, height = x2 - x1, y2 - y1
        around = torch.tensor([[x1 - width / 2, y1 - height / 2, x2 + width / 2, y2 + height / 2]])
        parts = []
        for level in range(level_of(box) - 1, level_of(box) + 2):
            if 0 <= level < len(STRIDES):
                of_image = maps[level][image : image + 1]
                parts.append(roi_align(of_image, [around], 14, 1 / STRIDES[level], 2, aligned=False))
            else:
                parts.append(torch.zeros(1, NARROW, 14, 14))
        joined.append(extractor.join(torch.cat(parts, dim=1)).relu())
    return torch.cat(joined).permute(0, 2, 3, 1)


def test_a_region_is_read_twice_as_large_from_its_level_and_those_beside_it(
    extractor: ContextExtractor, features: list[Tensor]
) -> None:
    assert [level_of(box) for box in BOXES] == [0, 1, 2, 3]
    found, expected = extractor(extractor.maps(features), BOXES, IMAGES), one_by_one(extractor, features)
    assert found.shape == (4, 7, 7, CHANNELS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    wanted = [*features, *extractor.parameters()]
    ours = torch.autograd.grad((found * weight).sum(), wanted)
    theirs = torch.autograd.grad((expected * weight).sum(), wanted)
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_one, theirs_one, rtol=1e-3, atol=1e-4 * theirs_one.abs().max().item())


def test_boxes_are_enlarged_around_their_centres() -> None:
    boxes = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    assert enlarge(boxes, 1.0).tolist() == boxes.tolist()
    assert enlarge(boxes, 2.0).tolist() == [[5.0, 0.0, 25.0, 40.0]]


@pytest.mark.parametrize("pool", ["align", "precise"])
def test_a_detector_with_context_learns_and_detects_without_regions_too(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    custom = {"_target_": "megdet.model.precise_roi_pool.PreciseRoIPool"} if pool == "precise" else None
    model = tiny_model()
    model.roi_pool, model.bn_in = RoIPoolSettings(pool, custom=custom), ["backbone", "fpn", "context"]
    model.context = ContextSettings(scale=2.0, channels=8)
    model.check()
    norm = norm_layers(model, bn_size=2, group=None)
    detector = build_detector(model, EvaluationSettings(), num_classes=4, norm=norm, sublinear=False, seed=0)
    assert sum(isinstance(module, CrossGPUBatchNorm2d) for module in detector.roi_heads.modules()) == 4
    batch = random_batch([(64, 96)] * 2)
    train_pass(detector, batch)
    assert bool(gradients(detector)["roi_heads.context.join.weight"].any())
    assert len(detect(detector, batch)) == 2
    monkeypatch.setattr(detector.rpn, "propose", lambda features, sizes: [torch.empty(0, 4) for _ in sizes])
    train_pass(detector, random_batch([(64, 96)] * 2, objects=0))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(detector).values())
    assert [len(found.boxes) for found in detect(detector, batch)] == [0, 0]


def test_a_norm_in_layers_that_are_not_there_is_refused_when_planned() -> None:
    with pytest.raises(UserError, match=r"model.bn_in has context, and model.context.scale=null makes no such layers"):
        ModelSettings(bn_in=["backbone", "context"]).check("model.")
