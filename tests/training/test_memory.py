"""Predicted memory against what torch's allocator counts while the real loop trains.

The count knows nothing of the prediction: the profiler sees every allocation and release of a tensor on this CPU. On a
GPU `python -m benchmarks.gpu --only memory` holds the same prediction to CUDA's allocator.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.found import Bench
from benchmarks.gpu.trainer import alone, detector_of, trainer_of
from benchmarks.sample import NUM_CLASSES, sample
from megdet.config.schema import Config
from megdet.data.batch import ImageBatch
from megdet.model.settings import OFFLOAD, BackboneSettings, FPNSettings, ModelSettings, RoIHeadsSettings, RPNSettings
from megdet.planning.mask_memory import mask_weights
from megdet.planning.memory import memory_gb

WITHIN = 0.15


def model_of(backbone: str) -> ModelSettings:
    name, _, atrous = backbone.partition(" ")
    frozen = 0 if name == "tiny" else 2
    return ModelSettings(
        backbone=BackboneSettings(name=name, weights="none", frozen_stages=frozen, atrous=bool(atrous)),
        fpn=FPNSettings(channels=64),
        rpn=RPNSettings(pre_nms_train=200, post_nms_train=200, samples=64),
        roi_heads=RoIHeadsSettings(samples=64, head_channels=128),
    )


def measured_gb(
    model: ModelSettings, *, images: int, size: tuple[int, int], bn: bool, bf16: bool, sublinear: bool | str
):
    """The peak over two steps, from before the detector is made."""
    bench = Bench("cpu", quick=True)
    with alone(bench), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        trainer = trainer_of(
            bench,
            images=images,
            precision="bf16" if bf16 else "fp32",
            frozen=not bn,
            model=model,
            sublinear=sublinear,
        )
        trainer.steps([batch_of(images, size, model)] * 2)
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]).cumsum(0)
    return held.max().item() / 2**30


SIDE = 128
"""Of objects with masks, in pixels: on a square level of stride 4 they are as large as planning takes them to be."""


def batch_of(images: int, size: tuple[int, int], model: ModelSettings) -> ImageBatch:
    batch = sample(images, *size, masks=model.mask.name is not None)
    if batch.masks is not None:
        for number, boxes in enumerate(batch.boxes):
            low = boxes[:, :2].minimum(torch.tensor([size[1] - SIDE, size[0] - SIDE]).clamp(min=0))
            batch.boxes[number] = torch.cat((low, low + min(SIDE, *size)), dim=1)
            batch.masks[number] = torch.ones_like(batch.masks[number])
    return batch


def in_numpy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the same layout that torch has not allocated."""
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    source = tensor.detach().permute(0, 2, 3, 1) if channels_last else tensor.detach()
    kind = {torch.bfloat16: np.int16}.get(source.dtype, str(source.dtype).removeprefix("torch."))
    values = torch.from_numpy(np.empty(source.shape, kind)).view(source.dtype).copy_(source)
    return values.permute(0, 3, 1, 2) if channels_last else values


def predicted_gb(
    model: ModelSettings, *, images: int, size: tuple[int, int], bn: bool, bf16: bool, sublinear: bool | str
):
    config = Config(bn_size=images if bn else 0, precision="bf16" if bf16 else "fp32", model=model)
    config.data.min_size, config.data.max_size = size
    config.data.num_classes = NUM_CLASSES
    return memory_gb(config, images=images, sublinear=sublinear)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "images", "size", "bn", "bf16", "sublinear"),
    [
        ("tiny", 16, (64, 96), True, False, False),
        ("tiny", 16, (64, 96), False, False, False),
        ("tiny", 8, (128, 192), True, False, True),
        ("resnet18", 2, (256, 320), True, False, False),
        ("resnet18", 2, (256, 320), True, True, False),
        ("resnet50", 2, (256, 320), True, False, False),
        ("resnet50", 2, (256, 320), False, False, False),
        ("resnet50", 2, (256, 320), True, False, True),
        ("resnet50", 2, (256, 320), True, False, OFFLOAD),
        ("resnet50", 2, (256, 320), True, True, OFFLOAD),
        ("resnet18", 2, (256, 320), True, False, OFFLOAD),
        ("resnet50", 1, (256, 320), True, True, False),
        ("resnext50_32x4d", 2, (256, 320), True, False, False),
        ("seresnext50_32x4d", 2, (256, 320), True, False, False),
        ("seresnext50_32x4d", 2, (256, 320), False, False, False),
        ("resnet50 atrous", 2, (256, 320), True, False, False),
        ("resnet50 atrous", 2, (256, 320), True, False, True),
        ("tiny", 16, (64, 96), True, True, False),
        ("efficientnet_lite0", 2, (256, 320), True, False, False),
        ("efficientnet_lite0", 16, (64, 96), True, False, False),
        ("efficientnet_lite0", 16, (64, 96), False, False, False),
        ("efficientnet_lite0", 16, (64, 96), True, False, True),
    ],
)
def test_predicted_memory_is_what_the_allocator_counts(
    backbone: str,
    images: int,
    size: tuple[int, int],
    bn: bool,
    bf16: bool,
    sublinear: bool | str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Arrays of numpy stand for main memory: torch's allocator does not count them.
    monkeypatch.setattr("megdet.model.offload.to_main_memory", in_numpy)
    asked = {"images": images, "size": size, "bn": bn, "bf16": bf16, "sublinear": sublinear}
    predicted = predicted_gb(model_of(backbone), **asked)
    assert predicted == pytest.approx(measured_gb(model_of(backbone), **asked), rel=WITHIN)


@pytest.mark.slow
def test_with_offloading_a_small_backbone_takes_no_more_than_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the pyramid and the largest block, which are summed, are never there at the same time."""
    monkeypatch.setattr("megdet.model.offload.to_main_memory", in_numpy)
    asked = {"images": 8, "size": (128, 192), "bn": True, "bf16": False, "sublinear": OFFLOAD}
    assert measured_gb(model_of("tiny"), **asked) <= predicted_gb(model_of("tiny"), **asked)


def with_module(name: str, setting: str, value: float) -> ModelSettings:
    model = model_of("tiny")
    setattr(getattr(model, name), setting, value)
    model.bn_in = [*model.bn_in, name]
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("images", "size", "sublinear"), [(16, (64, 96), False), (4, (256, 256), True)])
@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [("large_kernel", "size", 15), ("context", "scale", 2.0), ("segmentation", "weight", 0.1)],
)
def test_predicted_memory_has_the_enhanced_detectors_modules(
    name: str, setting: str, value: float, images: int, size: tuple[int, int], sublinear: bool
) -> None:
    asked = {"images": images, "size": size, "bn": True, "bf16": False, "sublinear": sublinear}
    predicted, without = (
        predicted_gb(model, **asked) for model in (with_module(name, setting, value), model_of("tiny"))
    )
    measured = measured_gb(with_module(name, setting, value), **asked)
    assert predicted == pytest.approx(measured, rel=WITHIN)
    # What the module adds, which is the smaller part of most of these, is not far off itself.
    assert predicted - without == pytest.approx(measured - measured_gb(model_of("tiny"), **asked), rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["head", "generator"])
@pytest.mark.parametrize(
    ("images", "size", "bn", "bf16"),
    [(4, (256, 256), True, False), (4, (256, 256), True, True), (16, (64, 96), False, False)],
)
def test_predicted_memory_has_masks(name: str, images: int, size: tuple[int, int], bn: bool, bf16: bool) -> None:
    model = model_of("tiny")
    model.mask.name = name
    model.roi_heads.positive_fraction = 0.1  # 6 regions, so that 7 objects are enough for all that may have a mask
    asked = {"images": images, "size": size, "bn": bn, "bf16": bf16, "sublinear": False}
    predicted, without = predicted_gb(model, **asked), predicted_gb(model_of("tiny"), **asked)
    assert predicted == pytest.approx(measured_gb(model, **asked), rel=WITHIN)
    assert predicted > 1.15 * without, "masks take enough here to be missed"


@pytest.mark.parametrize(("layers", "channels"), [(4, None), (1, 32)])
@pytest.mark.parametrize("name", ["head", "generator"])
def test_the_weights_of_masks_are_counted_as_torch_counts_them(name: str, layers: int, channels: int | None) -> None:
    def weights(model: ModelSettings) -> int:
        detector = detector_of(Bench("cpu", quick=True), model, bn_size=0)
        return sum(weight.numel() for weight in detector.parameters())

    config = Config(bn_size=0, model=model_of("tiny"))
    config.data.num_classes = NUM_CLASSES
    without = weights(config.model)
    small, large = (
        {"images": images, "size": (64, 96), "bn": False, "bf16": False, "sublinear": False} for images in (1, 9)
    )
    least = predicted_gb(config.model, **small)
    config.model.mask.name, config.model.mask.layers, config.model.mask.channels = name, layers, channels
    assert mask_weights(config) == weights(config.model) - without
    assert predicted_gb(config.model, **large) > predicted_gb(config.model, **small) > least


@pytest.mark.slow
def test_hard_examples_take_no_more_memory_than_random_ones() -> None:
    model = model_of("tiny")
    model.roi_heads.sampler = "ohem"
    asked = {"images": 16, "size": (64, 96), "bn": True, "bf16": False, "sublinear": False}
    assert predicted_gb(model, **asked) == pytest.approx(measured_gb(model, **asked), rel=WITHIN)


def test_a_backbone_of_ones_own_has_no_prediction() -> None:
    model = ModelSettings(
        backbone=BackboneSettings(name="mine", weights="none", frozen_stages=0, custom={"_target_": "a.B"})
    )
    config = Config(model=model)
    config.data.num_classes = NUM_CLASSES
    assert memory_gb(config, images=1, sublinear=False) is None


def test_with_several_scales_it_is_that_of_the_largest() -> None:
    def at(min_size: int, max_size: int, scales: list[float] | None) -> float | None:
        config = Config()
        config.data.min_size, config.data.max_size, config.data.train_scales = min_size, max_size, scales
        config.data.num_classes = NUM_CLASSES
        return memory_gb(config, images=2, sublinear=False)

    assert at(400, 640, [0.5, 2.0, 1.0]) == at(800, 1280, None)
    assert at(400, 640, [0.5]) == at(200, 320, None)
