"""From a plan to the parts of a run: loaders, detector, optimizer, recorder. The only place that knows both sides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from megdet.data.coco import CocoSplit
from megdet.data.files import coco_files
from megdet.data.loader import EvalLoader, TrainLoader
from megdet.model.backbones import FusedFrozenBatchNorm2d, NormLayers
from megdet.model.cgbn import CrossGPUBatchNorm2d
from megdet.model.detector import Detector, build_detector
from megdet.model.weights import path_of
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import Mirror
from megdet.tracking.uri import default_uri
from megdet.training.distributed import Ranks, bn_group_of
from megdet.training.recorder import Recorder


def loaders_of(plan: Plan, ranks: Ranks) -> tuple[TrainLoader, EvalLoader]:
    """This rank's training and validation images.

    Raises:
        UserError: where the files are not what the plan counts on.
    """
    config, layout = plan.config, plan.layout
    data = config.data
    files = coco_files(data.root)
    train = CocoSplit(
        files.train_images, files.train_annotations, expect_images=data.train_images, expect_classes=data.num_classes
    )
    val = CocoSplit(
        files.val_images,
        files.val_annotations,
        expect_images=data.val_images,
        images_setting="data.val_images",
        expect_classes=data.num_classes,
    )
    pin_memory = ranks.device.type == "cuda"
    train_loader = TrainLoader(
        train,
        batch=config.batch,
        bn_size=config.bn_size,
        images_per_gpu=layout.images_per_gpu,
        accumulation=layout.accumulation,
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=config.seed,
        min_size=data.min_size,
        max_size=data.max_size,
        flip=data.flip,
        aspect_grouping=data.aspect_grouping,
        max_bad_images=data.max_bad_images,
        workers=data.workers,
        pin_memory=pin_memory,
    )
    eval_loader = EvalLoader(
        val,
        images_per_gpu=layout.images_per_gpu,
        rank=ranks.rank,
        world_size=ranks.world_size,
        min_size=data.min_size,
        max_size=data.max_size,
        workers=data.workers,
        pin_memory=pin_memory,
        max_bad_images=data.max_bad_images,
    )
    return train_loader, eval_loader


def detector_of(plan: Plan, ranks: Ranks, *, pretrained: bool = True) -> Detector:
    """The detector with its norm layers joined to their BN groups; collective.

    `pretrained=False` leaves `model.weights` alone, where a checkpoint has all of them.
    """
    config, layout = plan.config, plan.layout
    model = config.model
    group = bn_group_of(ranks.rank, world_size=ranks.world_size, bn_group=layout.bn_group)
    cgbn: Callable[[int], nn.Module] = partial(CrossGPUBatchNorm2d, bn_size=config.bn_size, group=group)
    trains_bn = config.bn_size > 0
    norm = NormLayers(
        backbone=cgbn if trains_bn and "backbone" in model.bn_in else FusedFrozenBatchNorm2d,
        fpn=cgbn if trains_bn and "fpn" in model.bn_in else None,
    )
    detector = build_detector(
        backbone=model.backbone,
        num_classes=config.data.num_classes,
        norm=norm,
        weights=path_of(model.weights, model.backbone) if pretrained else None,
        frozen_stages=model.frozen_stages,
        sublinear=layout.sublinear,
        score_threshold=config.eval.score_threshold,
        detections_per_image=config.eval.detections_per_image,
        anchor_sizes=[[size] for size in model.anchor_sizes],
        anchor_ratios=model.anchor_ratios,
        fpn_channels=model.fpn_channels,
        box_head_channels=model.box_head_channels,
        rpn_pre_nms_train=model.rpn_pre_nms_train,
        rpn_pre_nms_test=model.rpn_pre_nms_test,
        rpn_post_nms_train=model.rpn_post_nms_train,
        rpn_post_nms_test=model.rpn_post_nms_test,
        rpn_nms=model.rpn_nms,
        rpn_samples=model.rpn_samples,
        rpn_positive_fraction=model.rpn_positive_fraction,
        rpn_positive_iou=model.rpn_positive_iou,
        rpn_negative_iou=model.rpn_negative_iou,
        roi_samples=model.roi_samples,
        roi_positive_fraction=model.roi_positive_fraction,
        roi_positive_iou=model.roi_positive_iou,
        nms=model.nms,
        roi_resolution=model.roi_resolution,
        init_seed=config.seed,
    )
    return detector.to(ranks.device).to(memory_format=torch.channels_last)


def optimizer_of(plan: Plan, detector: Detector) -> torch.optim.Optimizer:
    """SGD as in section 4 of the paper; weight decay on every trained parameter, norms included."""
    return torch.optim.SGD(
        [p for p in detector.parameters() if p.requires_grad],
        lr=plan.schedule.lr,
        momentum=plan.config.optimizer.momentum,
        weight_decay=plan.config.optimizer.weight_decay,
    )


def recorder_of(plan: Plan, folder: RunFolder, *, step: int) -> Recorder:
    """What writes the run's records into `folder`, and into MLflow where that is asked for; for rank 0 alone.

    `step`: optimizer steps that the attempt's checkpoint has done.
    """
    tracking = plan.config.tracking
    mirror = Mirror(folder, tracking.uri or default_uri(Path.cwd()), tracking.experiment) if tracking.enabled else None
    return Recorder(folder, name=plan.name, step=step, mirror=mirror)
