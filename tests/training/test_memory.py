"""Predicted memory against what torch's allocator counts while the real loop trains.

The count knows nothing of the prediction: the profiler sees every allocation and release of a tensor on this CPU. On a
GPU `python -m benchmarks.gpu --only memory` holds the same prediction to CUDA's allocator.
"""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.found import Bench
from benchmarks.gpu.trainer import alone, trainer_of
from benchmarks.sample import NUM_CLASSES, sample
from megdet.config.schema import Config
from megdet.model.settings import BackboneSettings, FPNSettings, ModelSettings, RoIHeadsSettings, RPNSettings
from megdet.planning.memory import memory_gb

WITHIN = 0.15


def model_of(backbone: str) -> ModelSettings:
    frozen = 0 if backbone == "tiny" else 2
    return ModelSettings(
        backbone=BackboneSettings(name=backbone, weights="none", frozen_stages=frozen),
        fpn=FPNSettings(channels=64),
        rpn=RPNSettings(pre_nms_train=200, post_nms_train=200, samples=64),
        roi_heads=RoIHeadsSettings(samples=64, head_channels=128),
    )


def measured_gb(model: ModelSettings, *, images: int, size: tuple[int, int], bn: bool, bf16: bool, sublinear: bool):
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
        trainer.steps([sample(images, *size)] * 2)
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    changes = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())]).cumsum(0)
    return held.max().item() / 2**30


def predicted_gb(model: ModelSettings, *, images: int, size: tuple[int, int], bn: bool, bf16: bool, sublinear: bool):
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
        ("resnet50", 1, (256, 320), True, True, False),
    ],
)
def test_predicted_memory_is_what_the_allocator_counts(
    backbone: str, images: int, size: tuple[int, int], bn: bool, bf16: bool, sublinear: bool
) -> None:
    asked = {"images": images, "size": size, "bn": bn, "bf16": bf16, "sublinear": sublinear}
    predicted = predicted_gb(model_of(backbone), **asked)
    assert predicted == pytest.approx(measured_gb(model_of(backbone), **asked), rel=WITHIN)


def test_a_backbone_of_ones_own_has_no_prediction() -> None:
    model = ModelSettings(
        backbone=BackboneSettings(name="mine", weights="none", frozen_stages=0, custom={"_target_": "a.B"})
    )
    config = Config(model=model)
    config.data.num_classes = NUM_CLASSES
    assert memory_gb(config, images=1, sublinear=False) is None
