"""Region proposal network (Ren et al. 2015) over a feature pyramid.

In training torchvision's RPN differentiates its head at every anchor although only a few hundred sampled ones
carry loss. Here the head runs everywhere without a graph, to propose, and once more with a graph at the sampled
anchors alone: the same losses and gradients at a fraction of the backward pass and of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import batched_nms

from megdet.data.batch import ImageBatch
from megdet.data.size import Size
from megdet.model.matching import Matches, filled_up, match
from megdet.model.rows import RowSums, sum_rows
from megdet.model.sampling import IGNORED, Samples, Stream, sample_balanced
from megdet.model.settings import PYRAMID_STRIDES, AnchorSettings, RPNSettings
from megdet.model.wide import wide

SMOOTH_L1_BETA = 1 / 9
_MIN_PROPOSAL_SIZE = 1e-3  # pixels


@dataclass(frozen=True)
class RPNLosses:
    """Sums over images of each image's own mean over its sampled anchors."""

    objectness: Tensor
    box: Tensor
    num_positives: Tensor
    num_negatives: Tensor


class RPN(nn.Module):
    """Proposes boxes that may hold an object, and is trained to."""

    def __init__(
        self, channels: int, settings: RPNSettings, anchors: AnchorSettings, strides: Sequence[int] = PYRAMID_STRIDES
    ) -> None:
        """`channels` and `strides` are those of the pyramid's levels."""
        super().__init__()
        self.anchors = PyramidAnchors(anchors, strides)
        self.head = RPNHead(channels, self.anchors.per_cell)
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.settings = settings

    @torch.no_grad()
    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """Per image the proposals float32 [n_i, 4], best first, inside the image's own area.

        `features` are [N, C, H, W] per level of the pyramid, `sizes` each image's own.
        """
        pre_nms = self.settings.pre_nms_train if self.training else self.settings.pre_nms_test
        scores, chosen, starts, levels = [], [], [], []
        for level, (feature, anchors) in enumerate(zip(features, self.anchors(features), strict=True)):
            logits, deltas = self._predict_everywhere(feature)
            best, index = logits.topk(min(pre_nms, logits.shape[1]), dim=1)
            scores.append(best.sigmoid())
            chosen.append(deltas.gather(1, index[..., None].expand(-1, -1, 4)))
            starts.append(anchors[index])
            levels.append(torch.full_like(index[0], level))
        # All levels at once: the coder sends constants to the GPU, for which the host waits.
        boxes = self.box_coder.decode_single(torch.cat(chosen, 1).flatten(0, 1), torch.cat(starts, 1).flatten(0, 1))
        boxes = boxes.view(len(sizes), -1, 4)
        return self._suppress(boxes, torch.cat(scores, 1), torch.cat(levels), sizes)

    def losses(self, features: Sequence[Tensor], table: Tensor, batch: ImageBatch) -> RPNLosses:
        """The losses of the batch's sampled anchors; differentiable in `table`, the features' rows."""
        anchors, objects = torch.cat(self.anchors(features)), filled_up(batch.boxes)
        matches = match(objects, anchors)
        samples = sample_balanced(
            self._labels(matches),
            image_keys=batch.sampling_keys,
            stream=Stream.RPN,
            num_samples=self.settings.samples,
            positive_fraction=self.settings.positive_fraction,
        )
        logits, deltas = self._predict_at(samples, features, table)
        positive = samples.positive
        objectness = F.binary_cross_entropy_with_logits(logits, positive.to(logits), reduction="none")
        image, candidate = samples.image[positive], samples.candidate[positive]
        targets = self.box_coder.encode_single(objects[image, matches.object[image, candidate]], anchors[candidate])
        box = F.smooth_l1_loss(deltas[positive], targets, beta=SMOOTH_L1_BETA, reduction="none").sum(1)
        return RPNLosses(
            objectness=(objectness * samples.weight).sum(),
            box=(box * samples.weight[positive]).sum(),
            num_positives=positive.sum(),
            num_negatives=(~positive).sum(),
        )

    def _labels(self, matches: Matches) -> Tensor:
        """[N, anchors]: 1 positive, 0 negative, or ignored."""
        # Every object has a positive, however little its nearest anchors overlap it.
        positive = (matches.overlap >= self.settings.positive_iou) | matches.is_nearest
        negative = matches.overlap < self.settings.negative_iou
        return torch.where(positive, 1, torch.where(negative, 0, IGNORED))

    def _predict_everywhere(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, H*W*A] and deltas [N, H*W*A, 4] of one level, float32 at least, without a graph."""
        # Detached parameters: autocast would cache casts made here, which carry no gradient.
        conv = self._conv
        hidden = F.conv2d(feature, conv.weight.detach(), _some(conv.bias).detach(), padding=1).relu_()
        weight, bias = self._predictors()
        out = F.linear(hidden.permute(0, 2, 3, 1), weight.detach(), bias.detach())
        logits, deltas = wide(out).split((self.anchors.per_cell, 4 * self.anchors.per_cell), dim=-1)
        return logits.reshape(len(out), -1), deltas.reshape(len(out), -1, 4)

    def _predict_at(self, samples: Samples, features: Sequence[Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n] and deltas [n, 4] of the sampled anchors, float32 at least, with a graph."""
        per_cell = self.anchors.per_cell
        cells, anchor = samples.candidate // per_cell, samples.candidate % per_cell
        around = sum_rows(table, _surroundings(cells, samples.image, features)).view(len(cells), 9 * table.shape[1])
        hidden = F.linear(around, self._conv.weight.permute(0, 2, 3, 1).flatten(1), self._conv.bias).relu()
        out = wide(F.linear(hidden, *self._predictors()))
        row = torch.arange(len(cells), device=cells.device)
        return out[row, anchor], out[:, per_cell:].unflatten(1, (per_cell, 4))[row, anchor]

    @property
    def _conv(self) -> nn.Conv2d:
        conv = self.head.conv[0][0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def _predictors(self) -> tuple[Tensor, Tensor]:
        """The two 1x1 convolutions of the head as one matrix [5A, C], logits first, and its bias."""
        layers = (self.head.cls_logits, self.head.bbox_pred)
        weight = torch.cat([layer.weight.permute(0, 2, 3, 1).flatten(1) for layer in layers])
        return weight, torch.cat([_some(layer.bias) for layer in layers])

    def _suppress(self, boxes: Tensor, scores: Tensor, levels: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        post_nms = self.settings.post_nms_train if self.training else self.settings.post_nms_test
        extent = torch.tensor([(w, h, w, h) for h, w in sizes], dtype=boxes.dtype, device=boxes.device)
        boxes = boxes.clamp(min=0.0).minimum(extent[:, None])
        box_size = boxes[..., 2:] - boxes[..., :2]
        valid = (box_size >= _MIN_PROPOSAL_SIZE).all(dim=2) & (scores >= 0)  # drops NaN too
        proposals = []
        for image_boxes, image_scores, keep in zip(boxes, scores, valid, strict=True):
            kept = keep.nonzero().squeeze(1)
            candidates = image_boxes[kept]
            chosen = batched_nms(candidates, image_scores[kept], levels[kept], self.settings.nms)
            proposals.append(candidates[chosen[:post_nms]])
        return proposals


class PyramidAnchors:
    """The anchors of each level, centred on multiples of its stride (Lin et al. 2017); computed once per padded size.

    torchvision divides the image by the map instead: its last level, 2 ^ 6 pixels apart in the paper, has strides of 48
    to 64, and what an anchor is changes with the padding. The two agree where the padded size is a multiple of 64.
    """

    _CACHED_SIZES = 16

    def __init__(self, settings: AnchorSettings, strides: Sequence[int] = PYRAMID_STRIDES) -> None:
        sizes = tuple((size,) for size in settings.sizes)
        self._generator = AnchorGenerator(sizes, (tuple(settings.ratios),) * len(sizes))
        self._strides = [(stride, stride) for stride in strides]
        self._cache: dict[tuple[object, ...], list[Tensor]] = {}
        self.per_cell = len(settings.ratios)

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Per level float32 [H*W*A, 4]: cells in reading order, the anchors of a cell together."""
        device = features[0].device
        grids = [(f.shape[2], f.shape[3]) for f in features]
        key = (device, *grids)
        if key not in self._cache:
            if len(self._cache) == self._CACHED_SIZES:
                self._cache.clear()
            self._generator.set_cell_anchors(torch.float32, device)
            self._cache[key] = self._generator.grid_anchors(grids, self._strides)
        return self._cache[key]


def _surroundings(cells: Tensor, images: Tensor, features: Sequence[Tensor]) -> RowSums:
    """The rows of the 3 x 3 neighbourhood of each cell, nine per cell; outside the map they are 0.

    `cells` int64 [n] count the cells of one image level by level; `images` [n] is the image of each.
    """
    num_images, device = features[0].shape[0], cells.device
    heights, widths = torch.tensor([f.shape[2:] for f in features], device=device).unbind(1)
    ends = (heights * widths).cumsum(0)
    level = torch.bucketize(cells, ends, right=True)
    height, width = heights[level], widths[level]
    start = ends[level] - height * width
    y, x = (cells - start) // width, (cells - start) % width
    step = torch.arange(-1, 2, device=device)
    ys, xs = y[:, None, None] + step[:, None], x[:, None, None] + step
    inside = (ys >= 0) & (ys < height[:, None, None]) & (xs >= 0) & (xs < width[:, None, None])
    first = (num_images * start + images * height * width)[:, None, None]
    columns = torch.where(inside, first + ys * width[:, None, None] + xs, 0)
    return RowSums(
        columns=columns.flatten().to(torch.int32),
        offsets=torch.arange(columns.numel() + 1, dtype=torch.int32, device=device),
        weights=inside.flatten().to(torch.float32),
    )


def _some(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias
