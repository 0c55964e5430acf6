"""A trained run's detector for programs without megdet: torchvision's own Faster or Mask R-CNN loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from megdet.errors import UserError
from megdet.settings.paths import writing_to
from megdet.trained import torchvision_detector
from megdet.trained.torchvision_detector import NUMBERS, WEIGHTS
from megdet.training.checkpoint import write_tensors

if TYPE_CHECKING:
    from megdet.planning.plan import Plan
    from megdet.trained.run import TrainedRun

BACKBONES = ("resnet50", "resnet18", "resnext50_32x4d")
"""Those that torchvision has too."""
FC6 = "roi_heads.box_head.fc6.weight"
MASK_HEAD = {"mask.head.": "roi_heads.mask_head.", "mask.predictor.": "roi_heads.mask_predictor."}
PROGRAM = "detector.py"


def export_torchvision(run: TrainedRun, out: Path) -> Path:
    """Write `detector.pt` (a state dict), `detector.json` and `detector.py` (which make a model of it) into `out`.

    Raises:
        UserError: where torchvision has no detector of the run's structure, or `out` cannot be written.
    """
    numbers = numbers_of(run)
    state = torchvision_state(run)
    torchvision_detector.build(numbers).load_state_dict(state)  # strict: what is written fits
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        write_tensors(out / WEIGHTS, state)
        (out / NUMBERS).write_text(json.dumps(numbers, indent=2) + "\n")
        shutil.copyfile(torchvision_detector.__file__, out / PROGRAM)
    return out


def torchvision_state(run: TrainedRun) -> dict[str, Tensor]:
    """The weights under torchvision's names, which are ours, and in its layout; on the CPU, float32."""
    state = {
        _torchvisions(name): value.detach().cpu().contiguous()
        for name, value in run.detector.state_dict().items()
        if not name.startswith("segmentation.")  # it has no part in detection
    }
    model = run.plan.config.model
    resolution, channels = model.roi_pool.resolution, model.fpn.channels
    # Ours reads a region as (row, column, channel), torchvision's as (channel, row, column).
    by_place = state[FC6].view(-1, resolution, resolution, channels)
    state[FC6] = by_place.permute(0, 3, 1, 2).flatten(1).contiguous()
    return state


def _torchvisions(name: str) -> str:
    """A weight's name there: the mask head is one of its RoI heads."""
    for ours, theirs in MASK_HEAD.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def numbers_of(run: TrainedRun) -> dict[str, Any]:
    """What `megdet.trained.torchvision_detector.build` makes the model of. Raises UserError where it has no such."""
    _refuse_own_parts(run.plan)
    config = run.plan.config
    model, evaluation = config.model, config.eval
    rpn, heads = model.rpn, model.roi_heads
    return {
        "run": run.name,
        "classes": ["background", *run.classes.names],
        "category_ids": [0, *run.classes.ids],
        "min_size": config.data.min_size,
        "max_size": config.data.max_size,
        "backbone": model.backbone.name,
        "fpn_channels": model.fpn.channels,
        "fpn_norm": config.bn_size > 0 and "fpn" in model.bn_in,
        "anchor_sizes": model.anchors.sizes,
        "anchor_ratios": model.anchors.ratios,
        "roi_resolution": model.roi_pool.resolution,
        "head_channels": heads.head_channels,
        "mask_head": {
            "resolution": model.mask.resolution,
            "layers": model.mask.layers,
            "channels": model.mask.channels or model.fpn.channels,
        }
        if model.mask.name == "head"
        else None,
        "faster_rcnn": {
            "rpn_pre_nms_top_n_train": rpn.pre_nms_train,
            "rpn_pre_nms_top_n_test": rpn.pre_nms_test,
            "rpn_post_nms_top_n_train": rpn.post_nms_train,
            "rpn_post_nms_top_n_test": rpn.post_nms_test,
            "rpn_nms_thresh": rpn.nms,
            "rpn_fg_iou_thresh": rpn.positive_iou,
            "rpn_bg_iou_thresh": rpn.negative_iou,
            "rpn_batch_size_per_image": rpn.samples,
            "rpn_positive_fraction": rpn.positive_fraction,
            "box_fg_iou_thresh": heads.positive_iou,
            "box_bg_iou_thresh": heads.positive_iou,
            "box_batch_size_per_image": heads.samples,
            "box_positive_fraction": heads.positive_fraction,
            "box_nms_thresh": heads.nms,
            "box_score_thresh": evaluation.score_threshold,
            "box_detections_per_img": evaluation.detections_per_image,
        },
    }


def _refuse_own_parts(plan: Plan) -> None:
    model = plan.config.model
    own = [
        f"model.{name}={part.name}"
        for name, part in (("backbone", model.backbone), ("roi_pool", model.roi_pool), ("norm", model.norm))
        if part.custom is not None and not (name == "norm" and plan.config.bn_size == 0)
    ]
    if model.backbone.custom is None and model.backbone.name not in BACKBONES:
        own.append(f"model.backbone={model.backbone.name}")
    switches = {
        "model.backbone.atrous=true": model.backbone.atrous,
        f"model.large_kernel.size={model.large_kernel.size}": model.large_kernel.size is not None,
        f"model.context.scale={model.context.scale}": model.context.scale is not None,
        f"model.mask.name={model.mask.name}": model.mask.name == "generator",
    }
    own += [switch for switch, on in switches.items() if on]
    if own:
        raise UserError(
            f"{plan.run_id} cannot be exported: torchvision has no {', '.join(own)} (it has the backbones "
            f"{', '.join(BACKBONES)}, batch norm, and RoIAlign as in model/roi_pool=align). In Python, "
            "megdet.load(RUN).detector is the module itself"
        )
