"""Detections of a whole split, made by all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from megdet.data.batch import ImageBatch
from megdet.data.masks import Masks
from megdet.data.size import Size
from megdet.model.output import Detections

MASK_THRESHOLD = 0.5
"""From this probability on a pixel is of the object (He et al. 2017, section 3.1)."""
_PASTED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Found:
    """What was detected in some images."""

    rows: NDArray[np.float64]
    """[n, 7]: image id, x, y, width, height (pixels of the original image), score, category id."""
    masks: Masks | None = None
    """The n masks, each as large as its image; None where the detector has none."""

    def chosen(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Found:
        """These detections, in this order."""
        return Found(self.rows[places], None if self.masks is None else self.masks.chosen(places))


@torch.inference_mode()
def detect(
    model: nn.Module,
    batches: Iterable[ImageBatch],
    *,
    category_ids: list[int],
    device: torch.device,
    bf16: bool,
    on_batch: Callable[[], None],
) -> Found:
    """The detections of this rank's share of images, as COCO rows.

    `category_ids[label - 1]` is a label's id in the annotation file. `on_batch()` is called after each batch. Masks are
    encoded at once: no more than those of an image are in memory as pixels.
    """
    model.eval()
    categories = torch.tensor([0, *category_ids], dtype=torch.float64)
    rows = [torch.zeros(0, 7, dtype=torch.float64)]
    codes: list[bytes] = []
    with_masks = False
    for images in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found: list[Detections] = model(images.to(device))
        for image_id, detections, size in zip(images.image_ids, found, images.original_sizes, strict=True):
            rows.append(_coco_rows(image_id, detections, categories))
            if detections.masks is not None:
                with_masks = True
                codes += encoded(detections.masks, detections.boxes, size)
        on_batch()
    return Found(torch.cat(rows).numpy(), Masks.of(codes) if with_masks else None)


def encoded(masks: Tensor, boxes: Tensor, size: Size) -> list[bytes]:
    """Masks [n, m, m] of boxes [n, 4] of an image of that size, as run lengths of the whole image."""
    codes: list[bytes] = []
    for some, of_some in zip(masks.cpu().split(_PASTED_AT_ONCE), boxes.cpu().split(_PASTED_AT_ONCE), strict=True):
        pasted: Tensor = paste_masks_in_image(some[:, None], of_some, size)[:, 0]
        drawn = Masks.drawn((pasted >= MASK_THRESHOLD).to(torch.uint8).numpy())
        codes += map(drawn.code, range(len(drawn)))
    return codes


def _coco_rows(image_id: int, detections: Detections, categories: Tensor) -> Tensor:
    boxes, scores, labels = (t.cpu() for t in (detections.boxes, detections.scores, detections.labels))
    xy, wh = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    ids = torch.full((len(boxes), 1), float(image_id), dtype=torch.float64)
    return torch.cat([ids, xy.double(), wh.double(), scores.double()[:, None], categories[labels][:, None]], dim=1)


def gather_found(found: Found, device: torch.device) -> Found:
    """What all ranks found, on every rank, in an order that does not depend on how images were shared out.

    Masks travel as run lengths; a rank without an image has none of its own.
    """
    rows = _joined(torch.from_numpy(found.rows).to(device)).cpu().numpy()
    masks = None
    if _any_rank(found.masks is not None, device):
        own = found.masks or Masks.of(())
        codes = _joined(torch.from_numpy(own.codes.copy()).to(device)).cpu().numpy()
        lengths = _joined(torch.from_numpy(np.diff(own.ends, prepend=0)).to(device)).cpu().numpy()
        masks = Masks(codes, np.cumsum(lengths))
    return Found(rows, masks).chosen(np.argsort(rows[:, 0], kind="stable"))


def _any_rank(value: bool, device: torch.device) -> bool:
    flag = torch.tensor(value, dtype=torch.long, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _joined(own: Tensor) -> Tensor:
    """The rows [n_r, ...] of all ranks, one rank's after the other's."""
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=own.device)
    counts[dist.get_rank()] = len(own)
    dist.all_reduce(counts)
    padded = own.new_zeros((int(counts.max()), *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])
