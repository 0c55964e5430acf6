"""Builds the parts of a run from its plan: loaders, detector, optimizer, learning rate, recorder."""

from __future__ import annotations

from pathlib import Path

import torch

from megdet.data.data_set import DataSet
from megdet.data.eval_loader import EvalLoader
from megdet.data.loader import TrainLoader
from megdet.model.detector import Detector, build_detector
from megdet.model.norms import norm_layers
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.tracking.mirror import Mirror
from megdet.tracking.moved import uri_here
from megdet.tracking.uri import default_uri
from megdet.training.average import WeightAverage
from megdet.training.distributed import Ranks, bn_group_of
from megdet.training.learning_rate import LearningRate, build_learning_rate
from megdet.training.noise_scale import NoiseMeter
from megdet.training.optimizer import build_optimizer
from megdet.training.recorder import Recorder
from megdet.training.system_metrics import SystemMetrics


def loaders_of(plan: Plan, ranks: Ranks, data_set: DataSet) -> tuple[TrainLoader, EvalLoader]:
    """This rank's training and validation images."""
    config, layout = plan.config, plan.layout
    data = config.data
    pin_memory = ranks.device.type == "cuda"
    train_loader = TrainLoader(
        data_set.train,
        batch=config.batch,
        bn_size=config.bn_size,
        images_per_gpu=layout.images_per_gpu,
        accumulation=layout.accumulation,
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=config.seed,
        min_size=data.min_size,
        max_size=data.max_size,
        train_scales=data.train_scales or (),
        flip=data.flip,
        aspect_grouping=data.aspect_grouping,
        max_bad_images=data.max_bad_images,
        workers=data.workers,
        pin_memory=pin_memory,
        masks=config.model.reads_masks,
    )
    eval_loader = EvalLoader(
        data_set.val,
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

    `pretrained=False` leaves `model.backbone.weights` alone, where a checkpoint has all of them; so does
    `model.init_from`, a checkpoint too.
    """
    config, layout = plan.config, plan.layout
    assert config.data.num_classes is not None, "as planned"
    group = bn_group_of(ranks.rank, world_size=ranks.world_size, bn_group=layout.bn_group, timeout=ranks.timeout)
    detector = build_detector(
        config.model,
        config.eval,
        num_classes=config.data.num_classes,
        norm=norm_layers(config.model, bn_size=config.bn_size, group=group),
        sublinear=layout.sublinear,
        seed=config.seed,
        pretrained=pretrained and config.model.init_from is None,
    )
    return detector.to(ranks.device).to(memory_format=torch.channels_last)


def optimizer_of(plan: Plan, detector: Detector) -> torch.optim.Optimizer:
    """The optimizer of all parameters that are not frozen, norms included."""
    return build_optimizer(
        plan.config.optimizer, detector, lr=plan.schedule.lr, warmup_steps=plan.schedule.warmup_steps
    )


def average_of(plan: Plan, detector: Detector) -> WeightAverage | None:
    """The running average of the weights, where one is asked for."""
    decay = plan.config.optimizer.ema_decay
    return None if decay is None else WeightAverage(detector, decay)


def learning_rate_of(plan: Plan) -> LearningRate:
    """The learning rate of every step."""
    return build_learning_rate(plan.config.schedule.custom, plan.schedule)


def noise_meter_of(plan: Plan, ranks: Ranks, detector: Detector) -> NoiseMeter | None:
    """What measures the noise scale; None where it is not asked for, or a step has one gradient alone. Collective."""
    config, layout = plan.config, plan.layout
    if not config.noise_scale_every or layout.independent_gradients < 2:
        return None
    return NoiseMeter(
        detector,
        every=config.noise_scale_every,
        batch=config.batch,
        gradients=layout.independent_gradients,
        group=bn_group_of(ranks.rank, world_size=ranks.world_size, bn_group=layout.bn_group, timeout=ranks.timeout),
    )


def recorder_of(plan: Plan, folder: RunFolder, *, step: int) -> Recorder:
    """The recorder of the run, for rank 0: writes into `folder`, and into MLflow if tracked.

    `step`: optimizer steps that the attempt's checkpoint has done.
    """
    tracking = plan.config.tracking
    uri = uri_here(folder.path, tracking.uri) if tracking.uri else default_uri(Path.cwd())
    mirror = Mirror(folder, uri, tracking.experiment) if tracking.enabled else None
    system = SystemMetrics() if tracking.system_metrics else None
    return Recorder(folder, name=plan.name, step=step, mirror=mirror, system=system)
