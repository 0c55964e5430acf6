"""The smallest real detector and loaders, for tests of whole training steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from megdet.data.annotations import read_annotations
from megdet.data.coco import CocoSplit
from megdet.data.files import coco_files
from megdet.data.loader import TrainLoader
from megdet.model.detector import Detector, build_detector
from megdet.model.norms import norm_layers
from megdet.model.settings import (
    AnchorSettings,
    BackboneSettings,
    EvaluationSettings,
    FPNSettings,
    ModelSettings,
    RoIHeadsSettings,
    RPNSettings,
)
from megdet.training.distributed import bn_group_of


def tiny_detector(
    *, bn_size: int, bn_group: int = 1, sublinear: bool | str = False, model: ModelSettings | None = None
) -> Detector:
    """A `tiny` detector with CGBN (or frozen BN) in backbone and FPN; collective where `bn_group` > 1."""
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    group = bn_group_of(rank, world_size=world_size, bn_group=bn_group) if bn_size else None
    model = model or tiny_model()
    return build_detector(
        model,
        EvaluationSettings(),
        num_classes=6,
        norm=norm_layers(model, bn_size=bn_size, group=group),
        sublinear=sublinear,
        seed=0,
    ).to(memory_format=torch.channels_last)


def tiny_model() -> ModelSettings:
    """The settings of a detector for images of 64 pixels."""
    return ModelSettings(
        name="tiny",
        backbone=BackboneSettings(name="tiny", weights="none", frozen_stages=0),
        fpn=FPNSettings(channels=16),
        anchors=AnchorSettings(sizes=[12, 24, 36, 48, 60]),
        rpn=RPNSettings(pre_nms_train=60, pre_nms_test=60, post_nms_train=60, post_nms_test=60, samples=32),
        roi_heads=RoIHeadsSettings(samples=32, head_channels=32),
    )


def tiny_loader(
    root: Path,
    *,
    batch: int,
    bn_size: int,
    images_per_gpu: int,
    accumulation: int,
    train_scales: Sequence[float] = (),
    masks: bool = False,
) -> TrainLoader:
    """This rank's share of the generated training images."""
    files = coco_files(root)
    return TrainLoader(
        CocoSplit(files.train_images, read_annotations(files.train_annotations, masks=masks)),
        batch=batch,
        bn_size=bn_size,
        images_per_gpu=images_per_gpu,
        accumulation=accumulation,
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        seed=0,
        min_size=64,
        max_size=107,
        flip=True,
        aspect_grouping=True,
        max_bad_images=0,
        workers=0,
        pin_memory=False,
        train_scales=train_scales,
        masks=masks,
    )
