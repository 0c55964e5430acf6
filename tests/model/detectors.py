"""Small detectors and batches of random images for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from megdet.data.batch import ImageBatch, Size
from megdet.model.detector import Detector, build_detector
from megdet.model.norms import NormLayers
from megdet.model.output import Detections, TrainingOutput
from megdet.model.settings import (
    AnchorSettings,
    BackboneSettings,
    EvaluationSettings,
    FPNSettings,
    ModelSettings,
    RoIHeadsSettings,
    RPNSettings,
)

NUM_CLASSES = 4
FROZEN = NormLayers(backbone=FrozenBatchNorm2d, fpn=None)
TRAINED = NormLayers(backbone=nn.BatchNorm2d, fpn=nn.BatchNorm2d)


def small_detector(
    *,
    backbone: str = "tiny",
    weights: Path | str = "none",
    frozen_stages: int = 0,
    channels: int = 16,
    head_channels: int = 32,
    num_classes: int = NUM_CLASSES,
    norm: NormLayers = FROZEN,
    score_threshold: float = 0.05,
    sublinear: bool | str = False,
    sampler: str = "balanced",
    seed: int = 0,
) -> Detector:
    model = ModelSettings(
        backbone=BackboneSettings(name=backbone, weights=str(weights), frozen_stages=frozen_stages),
        fpn=FPNSettings(channels=channels),
        anchors=AnchorSettings(sizes=[8, 16, 32, 64, 128]),
        rpn=RPNSettings(pre_nms_train=60, pre_nms_test=40, post_nms_train=80, post_nms_test=60, samples=32),
        roi_heads=RoIHeadsSettings(sampler=sampler, samples=24, head_channels=head_channels),
    )
    evaluation = EvaluationSettings(score_threshold, detections_per_image=50)
    return build_detector(model, evaluation, num_classes=num_classes, norm=norm, sublinear=sublinear, seed=seed)


def spread_scores(detector: nn.Module) -> None:
    """Make scores and boxes differ clearly, so that rounding does not reorder them."""
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "cls_logits.weight" in name or "cls_score.weight" in name or "bbox_pred.weight" in name:
                parameter.mul_(20.0)


def random_batch(
    sizes: Sequence[Size], *, padded: Size = (64, 96), objects: int | Sequence[int] = 3, seed: int = 0
) -> ImageBatch:
    """Images of noise with boxes inside them, padded to `padded`; `objects` per image."""
    generator = torch.Generator().manual_seed(seed)
    counts = [objects] * len(sizes) if isinstance(objects, int) else list(objects)
    images = torch.zeros((len(sizes), 3, *padded), dtype=torch.uint8)
    boxes, labels = [], []
    for image, (height, width), count in zip(images, sizes, counts, strict=True):
        noise = torch.randint(0, 256, (3, height // 4, width // 4), generator=generator).to(torch.uint8)
        image[:, :height, :width] = nn.functional.interpolate(noise[None], (height, width))[0]
        extent = torch.tensor([width, height], dtype=torch.float32)
        corner = torch.rand(count, 2, generator=generator) * extent * 0.6
        size = (0.1 + 0.3 * torch.rand(count, 2, generator=generator)) * extent
        boxes.append(torch.cat((corner, corner + size), dim=1))
        labels.append(torch.randint(1, NUM_CLASSES + 1, (count,), generator=generator))
    return ImageBatch(
        images=images,
        sizes=list(sizes),
        boxes=boxes,
        labels=labels,
        image_ids=list(range(len(sizes))),
        original_sizes=list(sizes),
        sampling_keys=[1000 * seed + index for index in range(len(sizes))],
    )


def train_pass(detector: nn.Module, batch: ImageBatch) -> TrainingOutput:
    """Forward and backward: gradients of the sum of the losses are added to the parameters'."""
    output = detector.train()(batch)
    assert isinstance(output, TrainingOutput)
    torch.stack(list(output.losses.values())).sum().backward()
    return output


def detect(detector: nn.Module, batch: ImageBatch) -> list[Detections]:
    detections = detector.eval()(batch)
    assert isinstance(detections, list)
    return detections


def gradients(detector: nn.Module) -> dict[str, Tensor]:
    """Of all trainable parameters, each of which must have one."""
    found = {}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            found[name] = parameter.grad.clone()
    return found


def save_state(state: dict[str, Any], path: Path) -> Path:
    torch.save(state, path)
    return path
