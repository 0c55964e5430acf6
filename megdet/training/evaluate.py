"""Detections of a whole split, made by all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from megdet.data.batch import ImageBatch
from megdet.model.output import Detections


@torch.inference_mode()
def detect(
    model: nn.Module,
    batches: Iterable[ImageBatch],
    *,
    category_ids: list[int],
    device: torch.device,
    bf16: bool,
    on_batch: Callable[[], None],
) -> NDArray[np.float64]:
    """The detections of this rank's share of images, as COCO rows.

    `category_ids[label - 1]` is a label's id in the annotation file. `on_batch()` is called after each batch.

    Returns: float64 [n, 7]: image id, x, y, width, height (pixels of the original image), score, category id.
    """
    model.eval()
    categories = torch.tensor([0, *category_ids], dtype=torch.float64)
    rows = [torch.zeros(0, 7, dtype=torch.float64)]
    for images in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found: list[Detections] = model(images.to(device))
        rows += [
            _coco_rows(image_id, detections, categories)
            for image_id, detections in zip(images.image_ids, found, strict=True)
        ]
        on_batch()
    return torch.cat(rows).numpy()


def _coco_rows(image_id: int, detections: Detections, categories: Tensor) -> Tensor:
    boxes, scores, labels = (t.cpu() for t in (detections.boxes, detections.scores, detections.labels))
    xy, wh = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    ids = torch.full((len(boxes), 1), float(image_id), dtype=torch.float64)
    return torch.cat([ids, xy.double(), wh.double(), scores.double()[:, None], categories[labels][:, None]], dim=1)


def gather_rows(rows: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
    """The rows of all ranks, on every rank, in an order that does not depend on how they were shared out."""
    own = torch.from_numpy(rows).to(device)
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=device)
    counts[dist.get_rank()] = len(own)
    dist.all_reduce(counts)
    longest = int(counts.max())
    padded = own.new_zeros(longest, 7)
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    joined = torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)]).cpu().numpy()
    return joined[np.argsort(joined[:, 0], kind="stable")]
