"""Online hard example mining (Shrivastava et al. 2016): the regions that are worst classified and placed bear the loss.

The losses of all candidates of an image are computed without a graph; those that are kept are computed once more
with one. Nothing is drawn, and each image chooses for itself, so the layout makes no difference.
"""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import nms

NMS = 0.7
"""IoU above which two regions count as one, and the one with the smaller loss goes (section 5 of the paper)."""


def hardest(boxes: Tensor, losses: Tensor, count: int) -> Tensor:
    """int64 [at most `count`]: which of an image's regions have the largest losses, of those that overlap only one.

    `boxes` is [n, 4], `losses` [n].
    """
    kept: Tensor = nms(boxes, losses.to(boxes.dtype), NMS)
    return kept[:count]
