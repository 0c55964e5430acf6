"""How a batch is laid over GPUs so that exactly `bn_size` images stand behind each BN statistic.

    batch = gpus x images_per_gpu x accumulation
    bn_size = bn_group x images_per_gpu     a statistic is shared by bn_group consecutive GPUs, or
    images_per_gpu = bn_splits x bn_size    a GPU's images are split into bn_splits BN batches

A BN group stays inside a node unless that is lifted, and groups tile the GPUs. Accumulation can stand in
for GPUs in `batch`, never in `bn_size`. Everything is a search over divisors: pure and instant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Layout:
    """Where the images of an optimizer step are."""

    gpus: int
    nodes: int
    gpus_per_node: int
    """GPUs used on each node."""
    images_per_gpu: int
    accumulation: int
    bn_group: int
    """Consecutive GPUs that share a BN statistic; 1 where BN is frozen."""
    bn_splits: int
    """BN batches inside one GPU's forward pass; 1 where BN is frozen."""
    sublinear: bool | str
    """Whether activations are recomputed in backward; "offload": and what is kept for that lies in main memory."""

    @property
    def sublinear_text(self) -> str:
        """off, on or offload."""
        return self.sublinear if isinstance(self.sublinear, str) else ("off", "on")[self.sublinear]

    @property
    def independent_gradients(self) -> int:
        """Gradients of a step that share no BN batch: of its passes, those of a BN group together."""
        return self.gpus * self.accumulation // self.bn_group


@dataclass(frozen=True)
class LayoutRequest:
    """The requirements on a layout; None stands for `auto` or no limit."""

    batch: int
    bn_size: int
    most_batch: int
    """The largest batch that could be asked for instead."""
    gpus: int | None
    images_per_gpu: int | None
    nodes: int
    gpus_per_node: int
    max_images_per_gpu: int | None
    max_images_by: str
    """The setting that says so, with its value."""
    max_images_if_sublinear: Mapping[bool | str, int]
    """What it would be with more of sublinear memory (True, "offload"), where memory is what limits it."""
    frozen_images_per_gpu: int
    """Images of a pass that are worth having at once where BN is frozen, and need no statistic to share."""
    bn_across_nodes: bool
    sublinear: bool | str

    @property
    def capacity(self) -> int:
        """The number of GPUs of the whole cluster."""
        return self.nodes * self.gpus_per_node

    @property
    def paper_images_per_gpu(self) -> int:
        """The paper's choice: the BN group is one whole node; two images a GPU where BN is frozen."""
        return max(1, self.bn_size // self.gpus_per_node) if self.bn_size else 2


def find_layout(request: LayoutRequest) -> Layout | None:
    """The layout of a request, or None where there is none."""
    if request.bn_size and request.batch % request.bn_size:
        return None
    for gpus in [request.gpus] if request.gpus else _gpus_choices(request):
        if (per_node := _per_node(request, gpus)) is None:
            continue
        for images_per_gpu in _images_per_gpu_choices(request, gpus):
            layout = _lay_out(request, gpus, per_node, images_per_gpu)
            if layout is not None:
                return layout
    return None


def all_layouts(request: LayoutRequest) -> Iterator[Layout]:
    """Every layout of a request, most GPUs first, and of those most images in a pass."""
    if request.bn_size and request.batch % request.bn_size:
        return
    for gpus in [request.gpus] if request.gpus else reversed(divisors(request.batch)):
        if (per_node := _per_node(request, gpus)) is None:
            continue
        images = [request.images_per_gpu] if request.images_per_gpu else reversed(divisors(request.batch // gpus))
        for images_per_gpu in images:
            layout = _lay_out(request, gpus, per_node, images_per_gpu)
            if layout is not None:
                yield layout


@lru_cache(maxsize=1024)
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, rising."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return (*small, *(number // d for d in reversed(small) if d * d != number))


def _per_node(request: LayoutRequest, gpus: int) -> int | None:
    """GPUs on each node; None where `gpus` are not there, are no whole nodes, or do not divide the batch."""
    per_node = min(gpus, request.gpus_per_node)
    return None if gpus > request.capacity or gpus % per_node or request.batch % gpus else per_node


def _gpus_choices(request: LayoutRequest) -> Iterator[int]:
    """gpus=auto: the paper's number, then the most that the cluster has."""
    images_per_gpu = request.images_per_gpu or request.paper_images_per_gpu
    if request.batch % images_per_gpu == 0:
        yield request.batch // images_per_gpu
    yield from reversed(divisors(request.batch))


def _images_per_gpu_choices(request: LayoutRequest, gpus: int) -> list[int]:
    """Best first: what is asked, else with gpus=auto the paper's number, else as many as one BN batch.

    Where BN is frozen, as many as are worth it: gpus=auto tries the paper's GPUs, with two images each, before others.
    """
    if request.images_per_gpu is not None:
        return [request.images_per_gpu]
    most = max(request.bn_size or request.frozen_images_per_gpu, 2)
    most = min(most, request.max_images_per_gpu or request.batch)
    choices = [d for d in reversed(divisors(request.batch // gpus)) if d <= most]
    if request.gpus is None and request.bn_size:
        paper = request.paper_images_per_gpu
        choices = [d for d in choices if d <= paper] + [d for d in reversed(choices) if d > paper]
    return choices


def _lay_out(request: LayoutRequest, gpus: int, per_node: int, images_per_gpu: int) -> Layout | None:
    """The layout of `images_per_gpu` on `gpus`, which make whole nodes and divide the batch; or None."""
    if request.batch % (gpus * images_per_gpu):
        return None
    if request.max_images_per_gpu is not None and images_per_gpu > request.max_images_per_gpu:
        return None
    bn_group = bn_splits = 1
    if request.bn_size:
        if images_per_gpu % request.bn_size == 0:
            bn_splits = images_per_gpu // request.bn_size
        elif request.bn_size % images_per_gpu == 0:
            bn_group = request.bn_size // images_per_gpu
        else:
            return None
    if (gpus if request.bn_across_nodes else per_node) % bn_group:
        return None
    return Layout(
        gpus=gpus,
        nodes=gpus // per_node,
        gpus_per_node=per_node,
        images_per_gpu=images_per_gpu,
        accumulation=request.batch // (gpus * images_per_gpu),
        bn_group=bn_group,
        bn_splits=bn_splits,
        sublinear=request.sublinear,
    )
