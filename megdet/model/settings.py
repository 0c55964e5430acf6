"""The settings of the detector's components, each with what it may be. Standard library only: planning reads them.

The defaults are the paper's detector: ResNet-50 with a feature pyramid, proposals and samples as in FPN and
torchvision. A part with a field `custom` can be one's own (`megdet.settings.own_part`); a Protocol in its module says
what it has to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from megdet.errors import UserError
from megdet.model.weights import BY_NAME, path_of
from megdet.settings.own_part import OwnPart, check_own_name
from megdet.settings.paths import PathText
from megdet.settings.rules import Each, Flag, Name, Number, OneOf, Settings, Whole, setting

STRIDES = (4, 8, 16, 32)
"""Of the backbone's four outputs, and of the pyramid levels that regions are pooled from."""
ATROUS_STRIDES = (4, 8, 16, 16)
"""The same with an atrous last stage."""


def pyramid_strides(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Of the levels that the RPN proposes from: one more, subsampled from the last."""
    return (*strides, 2 * strides[-1])


OFFLOAD = "offload"
"""Sublinear memory with what is kept in main memory (`megdet.model.offload`)."""
PYRAMID_STRIDES = pyramid_strides(STRIDES)
MOST_CHANNELS = 16384


def narrower(asked: int | None, channels: int) -> int:
    """Channels of a module's inner maps: as asked, or a quarter of the pyramid's."""
    return asked or max(1, channels // 4)


BACKBONES = ("resnet50", "resnet18", "resnext50_32x4d", "seresnext50_32x4d", "efficientnet_lite0", "tiny")
WITH_ATROUS = ("resnet50", "resnext50_32x4d", "seresnext50_32x4d", "tiny")
"""Those whose last stage can be atrous; the blocks of the others know no dilation."""
NORMS = ("cgbn",)
ROI_POOLS = ("align",)
BN_PLACES = ("backbone", "fpn", "large_kernel", "context", "segmentation", "mask")
SAMPLERS = ("balanced", "ohem")
MASKS = ("head", "generator")


@dataclass
class NormSettings(Settings):
    """The norm where `bn_in` puts it and `bn_size` is above 0."""

    name: str = setting("cgbn", Name())
    """cgbn: Cross-GPU Batch Normalization."""
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.model.norms.NormFactory` says."""

    def check_together(self, prefix: str) -> None:
        check_own_name(prefix, self.name, self.custom, NORMS)


@dataclass
class BackboneSettings(Settings):
    """The network below the pyramid, and the weights it starts from."""

    name: str = setting("resnet50", Name())
    """resnet50, resnet18, resnext50_32x4d, seresnext50_32x4d, efficientnet_lite0 or tiny."""
    weights: str = setting("imagenet", PathText())
    """imagenet (torchvision's file, or another where it has none), none, or the path of a state dict."""
    weights_sha256: str | None = setting(None, Name())
    """What the content of a file of one's own is known by; found out when planning. Given, it is checked."""
    frozen_stages: int = setting(2, Whole(most=5))
    """How many of stem, stage 1 .. 4 (in this order) are never trained."""
    atrous: bool = setting(False, Flag())
    """The last stage keeps the resolution of the one before (stride 16) and dilates its 3 x 3 kernels instead (Yu and
    Koltun 2015; Chen et al. 2016)."""
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.model.backbones.Backbone` says."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the four outputs, and of the pyramid levels that regions are pooled from."""
        return ATROUS_STRIDES if self.atrous else STRIDES

    def check_together(self, prefix: str) -> None:
        check_own_name(prefix, self.name, self.custom, BACKBONES)
        if self.atrous and self.name not in WITH_ATROUS:
            raise UserError(
                f"{prefix}atrous=true with {prefix}name={self.name}: its blocks cannot be dilated; use "
                f"{prefix}atrous=false, or {prefix}name={WITH_ATROUS[0]}"
            )
        path_of(self.weights, self.name)
        if self.weights in BY_NAME and self.weights_sha256 is not None:
            raise UserError(
                f"{prefix}weights_sha256={self.weights_sha256} is for a file of your own, and {prefix}weights="
                f"{self.weights} is known by its name; set {prefix}weights_sha256=null"
            )


@dataclass
class FPNSettings(Settings):
    """The feature pyramid (Lin et al. 2017)."""

    channels: int = setting(256, Whole(least=1, most=MOST_CHANNELS))
    """Of every level."""


@dataclass
class LargeKernelSettings(Settings):
    """Global convolutions (Peng et al. 2017) on the pyramid: k x 1 then 1 x k, and 1 x k then k x 1."""

    size: int | None = setting(None, Whole(least=3, most=127))
    """k, odd, such as 15; None: there are none."""
    channels: int | None = setting(None, Whole(least=1, most=MOST_CHANNELS))
    """Between the two convolutions of a branch; None: a quarter of the pyramid's."""

    def check_together(self, prefix: str) -> None:
        if self.size is not None and self.size % 2 == 0:
            raise UserError(
                f"{prefix}size={self.size}: use an odd number, such as {self.size + 1}: a kernel has a centre"
            )


@dataclass
class ContextSettings(Settings):
    """The context extractor (the authors' talk): what surrounds a region, on three pyramid levels."""

    scale: float | None = setting(None, Number(least=1, most=16))
    """How many times as wide and high as the region the surroundings are, such as 2; None: there are none."""
    channels: int | None = setting(None, Whole(least=1, most=MOST_CHANNELS))
    """Of the narrow maps that they are read from; None: a quarter of the pyramid's."""


@dataclass
class SegmentationSettings(Settings):
    """Segmentation supervision: a loss on which object is at every place of the pyramid."""

    weight: float | None = setting(None, Number(above=0, most=1000))
    """Of the loss, such as 0.1; None: there is none."""
    channels: int | None = setting(None, Whole(least=1, most=MOST_CHANNELS))
    """Of the maps between; None: a quarter of the pyramid's."""
    targets: str | None = setting(None, OneOf(("boxes", "masks")))
    """What says where an object is: its box, or its mask; None: masks where `model.mask` reads them, else boxes."""


@dataclass
class MaskSettings(Settings):
    """Instance segmentation: a mask of each object beside its box."""

    name: str | None = setting(None, OneOf(MASKS))
    """head: Mask R-CNN's (He et al. 2017). generator: that of the authors' talk. None: boxes alone."""
    layers: int = setting(4, Whole(least=1, most=64))
    """3 x 3 convolutions over a region."""
    channels: int | None = setting(None, Whole(least=1, most=MOST_CHANNELS))
    """Of these; None: the pyramid's, 256 in both papers."""
    resolution: int = setting(14, Whole(least=1, most=64))
    """A region is read as resolution x resolution bins."""


@dataclass
class AnchorSettings(Settings):
    """The boxes that proposals start from, the same at each place of a pyramid level."""

    sizes: list[int] = setting([32, 64, 128, 256, 512], Each(Whole(least=1)))
    """Side of the square anchor of each pyramid level, in pixels of the resized image."""
    ratios: list[float] = setting([0.5, 1.0, 2.0], Each(Number(above=0), least=1))
    """Height over width."""

    def check_together(self, prefix: str) -> None:
        if len(self.sizes) != len(PYRAMID_STRIDES):
            raise UserError(
                f"{prefix}sizes={self.sizes}: give {len(PYRAMID_STRIDES)} sizes, one for each pyramid level "
                f"(strides {', '.join(map(str, STRIDES))} and {PYRAMID_STRIDES[-1]})"
            )


@dataclass
class RPNSettings(Settings):
    """The region proposal network (Ren et al. 2015)."""

    pre_nms_train: int = setting(2000, Whole(least=1))
    """Proposals of one pyramid level that enter non-maximum suppression, while training."""
    pre_nms_test: int = setting(1000, Whole(least=1))
    post_nms_train: int = setting(2000, Whole(least=1))
    """Proposals of one image that leave it."""
    post_nms_test: int = setting(1000, Whole(least=1))
    nms: float = setting(0.7, Number(most=1))
    """IoU above which the weaker of two proposals goes."""
    samples: int = setting(256, Whole(least=1))
    """Anchors of one image that bear a loss."""
    positive_fraction: float = setting(0.5, Number(most=1))
    """The most of them that are positive."""
    positive_iou: float = setting(0.7, Number(most=1))
    """From this IoU with an object on, an anchor is positive ..."""
    negative_iou: float = setting(0.3, Number(most=1))
    """... and below this one it is negative."""

    def check_together(self, prefix: str) -> None:
        if self.negative_iou > self.positive_iou:
            raise UserError(
                f"{prefix}negative_iou={self.negative_iou:g} is above {prefix}positive_iou={self.positive_iou:g}: "
                "an anchor would be positive and negative"
            )


@dataclass
class RoIPoolSettings(Settings):
    """How the features of a region are read from the pyramid."""

    name: str = setting("align", Name())
    """align: RoIAlign (He et al. 2017)."""
    resolution: int = setting(7, Whole(least=1, most=64))
    """A region's features are resolution x resolution bins."""
    custom: Any = setting(None, OwnPart())
    """One's own, as `megdet.model.roi_pool.RoIPool` says."""

    def check_together(self, prefix: str) -> None:
        check_own_name(prefix, self.name, self.custom, ROI_POOLS)


@dataclass
class RoIHeadsSettings(Settings):
    """The second stage (Girshick 2015), which classifies regions and refines their boxes."""

    sampler: str = setting("balanced", OneOf(SAMPLERS))
    """balanced: a random sample of positives and negatives. ohem: online hard example mining (Shrivastava et al. 2016),
    those regions whose losses are largest, positive or not."""
    samples: int = setting(512, Whole(least=1))
    """Regions of one image that bear a loss."""
    positive_fraction: float = setting(0.25, Number(most=1))
    """The most of them that are positive, where `sampler` is balanced."""
    positive_iou: float = setting(0.5, Number(most=1))
    """From this IoU with an object on, a region is positive; below it, background."""
    head_channels: int = setting(1024, Whole(least=1, most=MOST_CHANNELS))
    """Of the two fully connected layers."""
    nms: float = setting(0.5, Number(most=1))
    """IoU above which the weaker of two detections of a class goes."""


@dataclass
class EvaluationSettings(Settings):
    """Which detections enter COCO evaluation."""

    score_threshold: float = setting(0.05, Number(most=1))
    detections_per_image: int = setting(100, Whole(least=1))


@dataclass
class ModelSettings(Settings):
    """The detector: Faster R-CNN with a feature pyramid."""

    name: str = setting("r50_fpn", Name())
    """What tables call it."""
    bn_in: list[str] = setting(["backbone", "fpn"], Each(OneOf(BN_PLACES)))
    """Where the norm goes when bn_size > 0."""
    init_from: str | None = setting(None, PathText())
    """A run that has trained (its folder, or its name in `runs_dir` or the beginning of it): training begins from its
    weights, heads that do not fit aside, and `backbone.weights` counts for nothing."""
    init_sha256: str | None = setting(None, Name())
    """What that run's checkpoint is known by; found out when planning. Given, it is checked."""
    norm: NormSettings = field(default_factory=NormSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    fpn: FPNSettings = field(default_factory=FPNSettings)
    large_kernel: LargeKernelSettings = field(default_factory=LargeKernelSettings)
    context: ContextSettings = field(default_factory=ContextSettings)
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    mask: MaskSettings = field(default_factory=MaskSettings)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    rpn: RPNSettings = field(default_factory=RPNSettings)
    roi_pool: RoIPoolSettings = field(default_factory=RoIPoolSettings)
    roi_heads: RoIHeadsSettings = field(default_factory=RoIHeadsSettings)

    @property
    def segments_by_masks(self) -> bool:
        """Whether segmentation supervision is by masks rather than boxes."""
        by_default = "boxes" if self.mask.name is None else "masks"
        return self.segmentation.weight is not None and (self.segmentation.targets or by_default) == "masks"

    @property
    def reads_masks(self) -> bool:
        """Whether training needs the objects' masks."""
        return self.mask.name is not None or self.segments_by_masks

    def check_together(self, prefix: str) -> None:
        switches = (
            ("large_kernel", "size", self.large_kernel.size, 15),
            ("context", "scale", self.context.scale, 2),
            ("segmentation", "weight", self.segmentation.weight, 0.1),
            ("mask", "name", self.mask.name, "generator"),
        )
        for place, key, value, usual in switches:
            if value is None and (unread := getattr(self, place).changed()):
                raise UserError(
                    f"{prefix}{place}.{unread} counts for nothing where {prefix}{place}.{key}=null makes no such "
                    f"layers; set {prefix}{place}.{key}, such as {usual}, or leave {prefix}{place}.{unread} out"
                )
            if place in self.bn_in and value is None:
                raise UserError(
                    f"{prefix}bn_in has {place}, and {prefix}{place}.{key}=null makes no such layers; set "
                    f"{prefix}{place}.{key}, such as {usual}, or leave {place} out of {prefix}bn_in"
                )
        if "mask" in self.bn_in and self.mask.name == "head":
            raise UserError(
                f"{prefix}bn_in has mask, and {prefix}mask.name=head has no maps of whole images to normalise, only "
                f"regions; leave mask out of {prefix}bn_in, or use {prefix}mask.name=generator"
            )
        if self.norm.name == "gn" and self.backbone.weights == "imagenet":
            raise UserError(
                f"{prefix}norm.name=gn with {prefix}backbone.weights=imagenet: those weights were trained with batch "
                f"norm; use {prefix}backbone.weights=none {prefix}backbone.frozen_stages=0, or a file trained with "
                "GroupNorm"
            )
        backbone = self.backbone
        if backbone.weights == "none" and backbone.frozen_stages and self.init_from is None:
            raise UserError(
                f"{prefix}backbone.frozen_stages={backbone.frozen_stages} with {prefix}backbone.weights=none would "
                f"freeze random layers; use {prefix}backbone.frozen_stages=0"
            )
        if self.init_sha256 is not None and self.init_from is None:
            raise UserError(
                f"{prefix}init_sha256={self.init_sha256} is of the run in {prefix}init_from, which is not given; name "
                "the run, or leave both out"
            )
