"""Which object a box is for (Ren et al. 2015, section 3.1.2): the one that it overlaps most.

torchvision's `Matcher` on its `box_iou` takes one image after the other, sixty small operations each, which is much of
a small detector's step. Here images are matched together, to the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

AT_ONCE = 2**22
"""Overlaps that are computed together: of as many images as that takes, or of one."""
_FILLED = -1000.0
"""Fills up boxes, whose coordinates are 0 and more but for rounding."""
_NO_OVERLAP = -1.0


@dataclass(frozen=True)
class Matches:
    """Of each box of N images, the object that it overlaps most: [N, boxes] each."""

    overlap: Tensor
    """With it: intersection over union (IoU); -1 where the image has no objects."""
    object: Tensor
    """int64: its position among the image's objects; the first of equals, 0 where there is none."""
    is_nearest: Tensor
    """bool: there is an object that no other box overlaps more."""


def filled_up(boxes: Sequence[Tensor]) -> Tensor:
    """[N, longest, 4] of the boxes [n_i, 4] of N images."""
    return pad_sequence(list(boxes), batch_first=True, padding_value=_FILLED)


def is_box(boxes: Tensor) -> Tensor:
    """bool [...]: what `filled_up` did not add to boxes [..., 4]."""
    return boxes[..., 0] > _FILLED


@torch.no_grad()
def match(objects: Tensor, boxes: Tensor) -> Matches:
    """Match boxes [N, B, 4], or [B, 4] if all images have the same, to `objects` [N, G, 4], both from `filled_up`."""
    of_each = boxes.expand(len(objects), *boxes.shape[-2:])
    at_once = max(1, AT_ONCE // max(1, objects.shape[1] * boxes.shape[-2]))
    parts = [_match(*part) for part in zip(objects.split(at_once), of_each.split(at_once), strict=True)]
    overlap, matched, is_nearest = (torch.cat(values) for values in zip(*parts, strict=True))
    return Matches(overlap, matched, is_nearest)


def _match(objects: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if objects.shape[1] == 0:
        overlap = boxes.new_full(boxes.shape[:2], _NO_OVERLAP)
        return overlap, torch.zeros_like(overlap, dtype=torch.int64), torch.zeros_like(overlap, dtype=torch.bool)
    overlaps = _overlaps(objects, boxes)
    is_object = is_box(objects)[..., None]
    overlaps.masked_fill_(~is_object, _NO_OVERLAP)
    overlap, matched = overlaps.max(dim=1)
    # Above all overlaps where it is no object.
    most = torch.where(is_object, overlaps.amax(dim=2, keepdim=True), 2.0)
    return overlap, matched, (overlaps == most).any(dim=1)


def _overlaps(objects: Tensor, boxes: Tensor) -> Tensor:
    """[N, G, B]: IoU of objects [N, G, 4] and boxes [N, B, 4], by the arithmetic of `torchvision.ops.box_iou`."""
    left, top, right, bottom = objects[..., None].unbind(2)
    box_left, box_top, box_right, box_bottom = boxes[:, None].unbind(3)
    # One coordinate at a time: a last dimension of two is slow.
    width = (torch.minimum(right, box_right) - torch.maximum(left, box_left)).clamp_(min=0)
    height = (torch.minimum(bottom, box_bottom) - torch.maximum(top, box_top)).clamp_(min=0)
    intersection = width.mul_(height)
    areas = (right - left) * (bottom - top) + (box_right - box_left) * (box_bottom - box_top)
    return intersection / areas.sub_(intersection)
