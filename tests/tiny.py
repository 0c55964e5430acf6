"""The smallest real detector and loaders, for tests of whole training steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from megdet.data.coco import CocoSplit
from megdet.data.files import coco_files
from megdet.data.loader import TrainLoader
from megdet.model.backbones import FusedFrozenBatchNorm2d, NormLayers
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector, build_detector
from megdet.training.distributed import bn_group_of


def tiny_detector(*, bn_size: int, bn_group: int = 1, sublinear: bool = False) -> Detector:
    """A `tiny` detector with CGBN (or frozen BN) in backbone and FPN; collective where `bn_group` > 1."""
    if bn_size:
        world_size = dist.get_world_size() if dist.is_initialized() else 1
        rank = dist.get_rank() if dist.is_initialized() else 0
        group = bn_group_of(rank, world_size=world_size, bn_group=bn_group)
        cgbn = partial(CrossGPUBatchNorm2d, bn_size=bn_size, group=group)
        norm = NormLayers(backbone=cgbn, fpn=cgbn)
    else:
        norm = NormLayers(backbone=FusedFrozenBatchNorm2d, fpn=None)
    return build_detector(
        backbone="tiny",
        num_classes=6,
        norm=norm,
        weights=None,
        frozen_stages=0,
        sublinear=sublinear,
        score_threshold=0.05,
        detections_per_image=100,
        anchor_sizes=[[12], [24], [36], [48], [60]],
        anchor_ratios=[0.5, 1.0, 2.0],
        fpn_channels=16,
        box_head_channels=32,
        rpn_pre_nms_train=60,
        rpn_pre_nms_test=60,
        rpn_post_nms_train=60,
        rpn_post_nms_test=60,
        rpn_nms=0.7,
        rpn_samples=32,
        rpn_positive_fraction=0.5,
        rpn_positive_iou=0.7,
        rpn_negative_iou=0.3,
        roi_samples=32,
        roi_positive_fraction=0.25,
        roi_positive_iou=0.5,
        nms=0.5,
        roi_resolution=7,
        init_seed=0,
    ).to(memory_format=torch.channels_last)


def tiny_loader(root: Path, *, batch: int, bn_size: int, images_per_gpu: int, accumulation: int) -> TrainLoader:
    """This rank's share of the generated training images."""
    files = coco_files(root)
    return TrainLoader(
        CocoSplit(files.train_images, files.train_annotations),
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
    )
