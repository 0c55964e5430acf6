"""Whether each value that a user wrote makes sense by itself, before numbers are put together."""

from __future__ import annotations

import math
from typing import Any

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.model.weights import path_of

PYRAMID_LEVELS = 5
"""Of strides 4, 8, 16, 32 and 64."""


def check_config(config: Config) -> None:
    """Raise UserError for values that make no sense by themselves, naming the knob and what it may be.

    Hydra has checked most types already; `~key` and callers from Python get past it.
    """
    for name, least in _WHOLE_NUMBERS.items():
        _check_whole_number(name, _value(config, name), least)
    for name, (lowest, highest) in _NUMBERS.items():
        _check_number(name, _value(config, name), lowest, highest)
    for name in ("lr.base", "lr.scale"):
        if _value(config, name) == 0:
            raise UserError(f"{name}=0: nothing would be learned; use a positive number")
    for name, choices in _CHOICES.items():
        if _value(config, name) not in choices:
            listed = ", ".join(str(choice).lower() for choice in choices)
            raise UserError(f"{name}={_value(config, name)}: use one of {listed}")
    if config.data.max_size < config.data.min_size:
        raise UserError(
            f"data.max_size={config.data.max_size} is below data.min_size={config.data.min_size}: "
            "the longer side cannot be the smaller one"
        )
    _check_model(config)


def _check_whole_number(name: str, value: Any, least: int) -> None:
    if (name in _AUTO and value == "auto") or (name in _OPTIONAL and value is None):
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        auto = " or auto" if name in _AUTO else ""
        raise UserError(f"{name}={value}: use a whole number of at least {least}{auto}")


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if name in _OPTIONAL and value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most:
        span = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise UserError(f"{name}={value}: use a number {span}")


def _check_model(config: Config) -> None:
    model = config.model
    misplaced = sorted(set(model.bn_in) - {"backbone", "fpn"})
    if misplaced:
        raise UserError(f"model.bn_in={misplaced}: BN can go in backbone and fpn")
    if config.bn_size and not model.bn_in:
        raise UserError(
            f"model.bn_in=[] leaves bn_size={config.bn_size} no layer; use bn_size=0, or model.bn_in=[backbone,fpn]"
        )
    for name in ("anchor_sizes", "anchor_ratios"):
        values = getattr(model, name)
        if not values or not all(value > 0 for value in values):
            raise UserError(f"model.{name}={list(values)}: use one or more positive numbers")
    if len(model.anchor_sizes) != PYRAMID_LEVELS:
        raise UserError(
            f"model.anchor_sizes={list(model.anchor_sizes)}: give {PYRAMID_LEVELS} sizes, one for each pyramid level"
        )
    path_of(model.weights, model.backbone)
    if model.weights == "none" and model.frozen_stages:
        raise UserError(
            f"model.frozen_stages={model.frozen_stages} with model.weights=none would freeze random layers; "
            "use model.frozen_stages=0"
        )


def _value(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


_WHOLE_NUMBERS = {
    "batch": 1,
    "bn_size": 0,
    "gpus": 1,
    "images_per_gpu": 1,
    "seed": 0,
    "log_every": 1,
    "lr.base_batch": 1,
    "schedule.epochs": 1,
    "schedule.warmup_images": 0,
    "model.fpn_channels": 1,
    "model.box_head_channels": 1,
    "model.rpn_pre_nms_train": 1,
    "model.rpn_pre_nms_test": 1,
    "model.rpn_post_nms_train": 1,
    "model.rpn_post_nms_test": 1,
    "model.rpn_samples": 1,
    "model.roi_samples": 1,
    "model.roi_resolution": 1,
    "model.frozen_stages": 0,
    "data.train_images": 1,
    "data.val_images": 1,
    "data.num_classes": 1,
    "data.min_size": 1,
    "data.max_size": 1,
    "data.max_bad_images": 0,
    "data.workers": 0,
    "eval.detections_per_image": 1,
    "cluster.nodes": 1,
    "cluster.gpus_per_node": 1,
    "cluster.max_images_per_gpu": 1,
}
"""Settings that are whole numbers, and their least values."""

_NUMBERS: dict[str, tuple[float, float]] = {
    "checkpoint_every_min": (0, math.inf),
    "lr.base": (0, math.inf),
    "lr.scale": (0, math.inf),
    "optimizer.momentum": (0, 1),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.clip_grad_norm": (0, math.inf),
    "schedule.warmup_epochs": (0, math.inf),
    "model.rpn_nms": (0, 1),
    "model.rpn_positive_fraction": (0, 1),
    "model.rpn_positive_iou": (0, 1),
    "model.rpn_negative_iou": (0, 1),
    "model.roi_positive_fraction": (0, 1),
    "model.roi_positive_iou": (0, 1),
    "model.nms": (0, 1),
    "eval.score_threshold": (0, 1),
}
"""Settings that are numbers, and where they must lie."""

_AUTO = {"gpus", "images_per_gpu"}

_OPTIONAL = {
    "schedule.warmup_epochs",
    "schedule.warmup_images",
    "optimizer.clip_grad_norm",
    "cluster.max_images_per_gpu",
}

_CHOICES: dict[str, tuple[object, ...]] = {
    "precision": ("fp32", "tf32", "bf16"),
    "sublinear": ("auto", True, False),
    "model.backbone": ("resnet50", "resnet18", "tiny"),
    "model.frozen_stages": (0, 1, 2, 3, 4, 5),
    "sweep.on_invalid": ("report", "error"),
}
