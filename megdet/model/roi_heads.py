"""The second stage (Fast R-CNN's head, Girshick 2015): classifies proposals and refines their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from megdet.data.batch import ImageBatch
from megdet.data.size import Size
from megdet.model.context import ContextExtractor
from megdet.model.hard_examples import hardest
from megdet.model.linear import linear
from megdet.model.matching import Matches, filled_up, is_box, match
from megdet.model.output import Detections, MatchedRegions, SampledRegions
from megdet.model.roi_pool import build_roi_pool
from megdet.model.rpn import SMOOTH_L1_BETA
from megdet.model.sampling import IGNORED, Samples, Stream, sample_balanced, samples_of
from megdet.model.settings import STRIDES, EvaluationSettings, RoIHeadsSettings, RoIPoolSettings
from megdet.model.wide import wide

_MIN_DETECTION_SIZE = 1e-2  # pixels
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class RoILosses:
    """Sums over images of each image's own mean over its sampled RoIs."""

    classes: Tensor
    box: Tensor
    regions: SampledRegions
    matched: MatchedRegions


@dataclass(frozen=True)
class _Pyramid:
    """What the features of regions are read from."""

    features: Sequence[Tensor]
    table: Tensor
    context: Sequence[Tensor] | None
    """The maps of the context extractor, where there is one."""


@dataclass(frozen=True)
class _Regions:
    """Boxes of several images to classify."""

    boxes: Tensor
    """float32 [R, 4]."""
    images: Tensor
    """int64 [R]: which image."""


class RoIHeads(nn.Module):
    """Pools the features of regions, classifies them and refines their boxes, class by class.

    `box_head.fc6` reads a region as (row, column, channel), the layout of channels-last features; torchvision's
    reads (channel, row, column).
    """

    def __init__(
        self,
        channels: int,
        settings: RoIHeadsSettings,
        pool: RoIPoolSettings,
        evaluation: EvaluationSettings,
        *,
        num_classes: int,
        strides: tuple[int, ...] = STRIDES,
        context: ContextExtractor | None = None,
    ) -> None:
        """`channels` and `strides` are those of the pyramid's levels that regions are pooled from."""
        super().__init__()
        self.box_head = TwoMLPHead(channels * pool.resolution**2, settings.head_channels)
        self.box_predictor = FastRCNNPredictor(settings.head_channels, num_classes + 1)
        self.pool = build_roi_pool(pool, strides)
        self.context = context
        self.box_coder = BoxCoder(_BOX_WEIGHTS)
        self.positive_iou = settings.positive_iou
        self.sampler = settings.sampler
        self.num_samples, self.positive_fraction = settings.samples, settings.positive_fraction
        self.nms = settings.nms
        self.score_threshold = evaluation.score_threshold
        self.detections_per_image = evaluation.detections_per_image

    def losses(
        self, features: Sequence[Tensor], table: Tensor, proposals: Sequence[Tensor], batch: ImageBatch
    ) -> RoILosses:
        """The losses of RoIs sampled from the proposals and the objects; differentiable in the features.

        `features` are the levels to pool from, `table` their `pyramid_rows` (further levels may follow).
        """
        pyramid = self._pyramid(features, table)
        candidates = [torch.cat(pair) for pair in zip(proposals, batch.boxes, strict=True)]
        boxes, objects = filled_up(candidates), filled_up(batch.boxes)
        matches = match(objects, boxes)
        labels, matched = self._labels(matches, boxes, batch), matches.object
        if self.sampler == "ohem":
            samples = self._hardest(pyramid, candidates, labels, matched, batch)
        else:
            samples = sample_balanced(
                labels,
                image_keys=batch.sampling_keys,
                stream=Stream.ROI,
                num_samples=self.num_samples,
                positive_fraction=self.positive_fraction,
            )
        boxes = boxes[samples.image, samples.candidate]
        classes = labels[samples.image, samples.candidate]
        positive = samples.positive
        image, candidate = samples.image[positive], samples.candidate[positive]
        own = matched[image, candidate]
        regions, targets = _Regions(boxes, samples.image), objects[image, own]
        class_loss, box_loss = self._region_losses(pyramid, regions, classes, positive, targets)
        return RoILosses(
            classes=(class_loss * samples.weight).sum(),
            box=(box_loss * samples.weight[positive]).sum(),
            regions=SampledRegions(boxes, samples.image, positive),
            matched=MatchedRegions(boxes[positive], image, own, classes[positive]),
        )

    @torch.no_grad()
    def detect(
        self,
        features: Sequence[Tensor],
        table: Tensor,
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
    ) -> list[Detections]:
        """The detections of each image, in pixels of the resized images."""
        counts = [len(p) for p in proposals]
        images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(table.device)
        pyramid = self._pyramid(features, table)
        logits, deltas = self._predict(pyramid, _Regions(torch.cat(list(proposals)), images))
        scores = logits.softmax(dim=1)
        return [
            self._select(*image)
            for image in zip(proposals, scores.split(counts), deltas.split(counts), sizes, strict=True)
        ]

    def _labels(self, matches: Matches, boxes: Tensor, batch: ImageBatch) -> Tensor:
        """[N, candidates]: the class of each box, 0 for background, or ignored where there is no box."""
        classes = pad_sequence(batch.labels, batch_first=True)
        if classes.shape[1] == 0:
            labels = torch.zeros_like(matches.object)
        else:
            labels = torch.where(matches.overlap >= self.positive_iou, classes.gather(1, matches.object), 0)
        return torch.where(is_box(boxes), labels, IGNORED)

    def _region_losses(
        self,
        pyramid: _Pyramid,
        regions: _Regions,
        classes: Tensor,
        positive: Tensor,
        objects: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The class loss of each region [R], and the box loss of each positive one [P]; `objects` [P, 4] are theirs."""
        logits, deltas = self._predict(pyramid, regions)
        class_loss = F.cross_entropy(logits, classes, reduction="none")
        targets = self.box_coder.encode_single(objects, regions.boxes[positive])
        predicted = deltas[positive, classes[positive]]
        box_loss = F.smooth_l1_loss(predicted, targets, beta=SMOOTH_L1_BETA, reduction="none").sum(1)
        return class_loss, box_loss

    @torch.no_grad()
    def _hardest(
        self,
        pyramid: _Pyramid,
        candidates: Sequence[Tensor],
        labels: Tensor,
        matched: Tensor,
        batch: ImageBatch,
    ) -> Samples:
        """The candidates of each image whose losses are largest now (`megdet.model.hard_examples`)."""
        device = pyramid.table.device.type
        chosen = []
        # Autocast would keep casts of the parameters made here, which carry no gradient.
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
            # One image at a time: all its candidates at once are four times a sample, and its mates make no difference.
            for number, boxes in enumerate(candidates):
                classes = labels[number, : len(boxes)]
                positive = classes >= 1
                objects = batch.boxes[number][matched[number, : len(boxes)][positive]]
                regions = _Regions(boxes, torch.full_like(classes, number))
                loss, box_loss = self._region_losses(pyramid, regions, classes, positive, objects)
                loss[positive] += box_loss
                chosen.append(hardest(boxes, loss, self.num_samples))
        return samples_of(chosen, labels)

    def _pyramid(self, features: Sequence[Tensor], table: Tensor) -> _Pyramid:
        return _Pyramid(features, table, self.context.maps(features) if self.context is not None else None)

    def _predict(self, pyramid: _Pyramid, regions: _Regions) -> tuple[Tensor, Tensor]:
        """Class logits [R, classes + 1] and deltas [R, classes + 1, 4], float32 at least."""
        pooled = self.pool(pyramid.features, pyramid.table, regions.boxes, regions.images)
        if self.context is not None and pyramid.context is not None:
            pooled = pooled + self.context(pyramid.context, regions.boxes, regions.images)
        head = self.box_head
        hidden = linear(pooled.flatten(1), head.fc6.weight, head.fc6.bias).relu_()
        hidden = linear(hidden, head.fc7.weight, head.fc7.bias).relu_()
        logits, deltas = self.box_predictor(hidden)
        return wide(logits), wide(deltas).unflatten(1, (-1, 4))

    def _select(self, proposals: Tensor, scores: Tensor, deltas: Tensor, size: Size) -> Detections:
        region, label = (scores[:, 1:] > self.score_threshold).nonzero(as_tuple=True)
        label = label + 1
        boxes = self.box_coder.decode_single(deltas[region, label], proposals[region])
        boxes = clip_boxes_to_image(boxes, size)
        keep = remove_small_boxes(boxes, _MIN_DETECTION_SIZE)
        boxes, region, label = boxes[keep], region[keep], label[keep]
        score = scores[region, label]
        best = batched_nms(boxes, score, label, self.nms)[: self.detections_per_image]
        return Detections(boxes=boxes[best], scores=score[best], labels=label[best])
