"""Faster R-CNN with a feature pyramid, the detector of all experiments: torchvision's parts and losses.

Differs from torchvision's in what decides whether an experiment means the same on every layout: each image's
loss is its own (a mean over its own samples), samples are seeded per image, and batches come already padded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from megdet.data.batch import ImageBatch
from megdet.data.size import Size
from megdet.errors import UserError
from megdet.model.backbones import BackboneWithFPN, build_backbone
from megdet.model.context import ContextExtractor
from megdet.model.efficientnet_lite import from_published, is_published
from megdet.model.large_kernel import LargeKernels
from megdet.model.mask_branch import MaskBranch
from megdet.model.mask_generator import MaskGenerator
from megdet.model.mask_head import MaskHead
from megdet.model.norms import NormLayers
from megdet.model.output import Detections, TrainingOutput
from megdet.model.roi_heads import RoIHeads
from megdet.model.rows import pyramid_rows
from megdet.model.rpn import RPN
from megdet.model.segmentation import SegmentationHead
from megdet.model.settings import STRIDES, EvaluationSettings, ModelSettings, pyramid_strides
from megdet.model.weights import check_weights, path_of, sha256_of

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in 0..1: what torchvision's backbones were trained with."""


class Detector(nn.Module):
    """Losses of an `ImageBatch` in training, its detections in evaluation."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(
        self,
        backbone: BackboneWithFPN,
        rpn: RPN,
        roi_heads: RoIHeads,
        segmentation: SegmentationHead | None = None,
        mask: MaskBranch | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.segmentation = segmentation
        self.mask = mask
        shape = (1, 3, 1, 1)
        self.register_buffer("image_mean", torch.tensor(IMAGE_MEAN).view(shape), persistent=False)
        self.register_buffer("image_std", torch.tensor(IMAGE_STD).view(shape), persistent=False)

    def forward(self, batch: ImageBatch) -> TrainingOutput | list[Detections]:
        features = self.backbone(self._normalised(batch))
        proposals = self.rpn.propose(features, batch.sizes)
        table = pyramid_rows(features)
        levels = features[: len(STRIDES)]
        if not self.training:
            found = self.roi_heads.detect(levels, table, proposals, batch.sizes)
            masks = [None] * len(found) if self.mask is None else self.mask.detect(levels, table, found)
            return [
                _in_original_pixels(*image)
                for image in zip(found, masks, batch.sizes, batch.original_sizes, strict=True)
            ]
        rpn = self.rpn.losses(features, table, batch)
        roi = self.roi_heads.losses(levels, table, proposals, batch)
        positive = roi.regions.positive
        losses = {
            "rpn_objectness": rpn.objectness,
            "rpn_box": rpn.box,
            "roi_class": roi.classes,
            "roi_box": roi.box,
        }
        if self.segmentation is not None:
            losses["segmentation"] = self.segmentation.loss(levels, batch)
        if self.mask is not None:
            losses["mask"] = self.mask.loss(levels, table, roi.matched, batch)
        return TrainingOutput(
            losses=losses,
            counts={
                "rpn_positive": rpn.num_positives,
                "rpn_negative": rpn.num_negatives,
                "roi_positive": positive.sum(),
                "roi_negative": (~positive).sum(),
            },
            regions=roi.regions,
        )

    @torch.no_grad()
    def _normalised(self, batch: ImageBatch) -> Tensor:
        """[N, 3, H, W] in the weights' dtype, channels last, mean 0 and std 1 over ImageNet; 0 outside each image."""
        images = batch.images.to(self.image_mean.dtype, memory_format=torch.channels_last).div_(255)
        images.sub_(self.image_mean).div_(self.image_std)
        for image, (height, width) in zip(images, batch.sizes, strict=True):
            image[:, height:].zero_()
            image[:, :, width:].zero_()
        return images


def _in_original_pixels(found: Detections, masks: Tensor | None, size: Size, original: Size) -> Detections:
    scale_y, scale_x = original[0] / size[0], original[1] / size[1]
    scale = found.boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))
    return replace(found, boxes=found.boxes * scale, masks=masks)


def build_detector(
    model: ModelSettings,
    evaluation: EvaluationSettings,
    *,
    num_classes: int,
    norm: NormLayers,
    sublinear: bool | str,
    seed: int,
    pretrained: bool = True,
) -> Detector:
    """A detector in channels-last layout on the CPU, its initial weights a function of `seed` alone.

    `num_classes` counts object classes, without background; `sublinear` is True, False or "offload".
    `model.backbone.weights` may be a file with either the state dict of the backbone (torchvision's, for a ResNet), or
    one of a whole detector (bare, or under "average" or "model" as in a checkpoint); `pretrained=False` leaves it
    alone.
    Raises UserError for weights that do not fit, and for own parts that cannot be made or do not fit their slot.
    """
    channels, strides = model.fpn.channels, model.backbone.strides
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = build_backbone(model.backbone, norm.backbone)
        large_kernel = context = segmentation = None
        mask: MaskBranch | None = None
        if model.large_kernel.size is not None:
            levels = len(pyramid_strides(strides))
            large_kernel = LargeKernels(
                levels, channels, model.large_kernel, norm=norm.large_kernel, sublinear=bool(sublinear)
            )
        if model.context.scale is not None:
            context = ContextExtractor(channels, model.context, model.roi_pool, strides=strides, norm=norm.context)
        if model.segmentation.weight is not None:
            segmentation = SegmentationHead(
                len(strides),
                channels,
                model.segmentation,
                num_classes=num_classes,
                norm=norm.segmentation,
                by_masks=model.segments_by_masks,
            )
        if model.mask.name == "head":
            mask = MaskHead(channels, model.mask, model.roi_pool, strides=strides, num_classes=num_classes)
        elif model.mask.name == "generator":
            mask = MaskGenerator(
                channels, model.mask, model.roi_pool, strides=strides, num_classes=num_classes, norm=norm.mask
            )
        detector = Detector(
            BackboneWithFPN(body, model.fpn, norm=norm.fpn, sublinear=sublinear, large_kernel=large_kernel),
            RPN(channels, model.rpn, model.anchors, pyramid_strides(strides)),
            RoIHeads(
                channels,
                model.roi_heads,
                model.roi_pool,
                evaluation,
                num_classes=num_classes,
                strides=strides,
                context=context,
            ),
            segmentation,
            mask,
        )
    weights = path_of(model.backbone.weights, model.backbone.name)
    if pretrained and weights is not None:
        _load_weights(detector, weights, sha256=model.backbone.weights_sha256)
    body.freeze(model.backbone.frozen_stages)
    return detector.to(memory_format=torch.channels_last)


def _load_weights(detector: Detector, path: Path, *, sha256: str | None) -> None:
    """`sha256`: what the file was planned with, where that is known."""
    try:
        if sha256 is not None:
            check_weights(str(path), planned=sha256, found=sha256_of(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"model.backbone.weights={path} cannot be read ({error.strerror}); give another path, or "
            "model.backbone.weights=none"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise UserError(
            f"model.backbone.weights={path} holds no weights that torch can read: it may be damaged, or hold more than "
            "tensors and plain values; fetch or make it again, or give another path"
        ) from error
    state = loaded.get("average", loaded.get("model", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"model.backbone.weights={path} holds {type(loaded).__name__}, and no weights by name")
    module: nn.Module = detector
    if not any(name.startswith("backbone.") for name in state):
        module = detector.get_submodule("backbone.body")
        if is_published(state):
            state = from_published(state, IMAGE_MEAN, IMAGE_STD)
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    expected = module.state_dict()
    # Layers differ in whether they count batches, which nothing here reads.
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if not name.endswith(".num_batches_tracked")
        and (name not in expected or name not in state or expected[name].shape != getattr(state[name], "shape", None))
    )
    if wrong:
        raise UserError(
            f"model.backbone.weights={path} does not fit this detector: {len(wrong)} of {len(expected)} tensors are "
            f"missing, unexpected or of another shape, such as {wrong[0]}; check model.backbone.name, "
            "data.num_classes, model.bn_in and the channels, or set model.backbone.weights=none"
        )
    module.load_state_dict({name: value for name, value in state.items() if name in expected}, strict=False)
