"""How a batch is laid over GPUs so that exactly `bn_size` images stand behind each BN statistic.

    batch = gpus x images_per_gpu x accumulation
    bn_size = bn_group x images_per_gpu     a statistic is shared by bn_group consecutive GPUs, or
    images_per_gpu = bn_splits x bn_size    a GPU's images are split into bn_splits BN batches

A BN group stays inside a node unless that is lifted, and groups tile the GPUs. Accumulation can stand in
for GPUs in `batch`, never in `bn_size`. Everything is a search over divisors: pure and instant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megdet.errors import UserError


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
    sublinear: bool


@dataclass(frozen=True)
class LayoutRequest:
    """What a layout must meet; None stands for `auto`, or for no limit."""

    batch: int
    bn_size: int
    gpus: int | None
    images_per_gpu: int | None
    nodes: int
    gpus_per_node: int
    max_images_per_gpu: int | None
    bn_across_nodes: bool
    sublinear: bool

    @property
    def capacity(self) -> int:
        """GPUs of the whole cluster."""
        return self.nodes * self.gpus_per_node

    @property
    def paper_images_per_gpu(self) -> int:
        """The paper's choice: the BN group is one whole node; two images a GPU where BN is frozen."""
        return max(1, self.bn_size // self.gpus_per_node) if self.bn_size else 2


def make_layout(request: LayoutRequest) -> Layout:
    """The layout that a request asks for. Raises UserError with the reason and values that would work."""
    layout = find_layout(request)
    if layout is None:
        ways = _ways_out(request)
        raise UserError(_why_not(request) + (f"\nWhat would work: {'; '.join(ways)}." if ways else ""))
    return layout


def find_layout(request: LayoutRequest) -> Layout | None:
    """The layout of a request, or None where there is none."""
    gpus_choices = [request.gpus] if request.gpus else list(_gpus_choices(request))
    for gpus in gpus_choices:
        for images_per_gpu in _images_per_gpu_choices(request, gpus):
            layout = _lay_out(request, gpus, images_per_gpu)
            if layout is not None:
                return layout
    return None


def _gpus_choices(request: LayoutRequest) -> Iterator[int]:
    """gpus=auto: the paper's number, then the most that the cluster has."""
    images_per_gpu = request.images_per_gpu or request.paper_images_per_gpu
    if request.batch % images_per_gpu == 0:
        yield request.batch // images_per_gpu
    yield from sorted((d for d in _divisors(request.batch) if d <= request.capacity), reverse=True)


def _images_per_gpu_choices(request: LayoutRequest, gpus: int) -> list[int]:
    """Best first: what is asked, else with gpus=auto the paper's number, else as many as one BN batch."""
    if request.images_per_gpu is not None:
        return [request.images_per_gpu]
    if request.batch % gpus:
        return []
    most = max(request.bn_size, 2)
    choices = sorted((d for d in _divisors(request.batch // gpus) if d <= most), reverse=True)
    if request.gpus is None:
        paper = request.paper_images_per_gpu
        choices = [d for d in choices if d <= paper] + [d for d in reversed(choices) if d > paper]
    return choices


def _lay_out(request: LayoutRequest, gpus: int, images_per_gpu: int) -> Layout | None:
    per_node = min(gpus, request.gpus_per_node)
    if gpus > request.capacity or gpus % per_node or request.batch % (gpus * images_per_gpu):
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


def _why_not(request: LayoutRequest) -> str:
    """The first rule that a request breaks."""
    batch, bn_size, gpus = request.batch, request.bn_size, request.gpus
    images, per_node = request.images_per_gpu, request.gpus_per_node
    asked = f"batch={batch}, bn_size={bn_size}" + (f", gpus={gpus}" if gpus else "")
    asked += f", images_per_gpu={images}: " if images else ": "
    limit = request.max_images_per_gpu
    if bn_size > batch:
        return asked + "a BN batch cannot exceed the batch."
    if bn_size and batch % bn_size:
        return asked + "the batch is not a whole number of BN batches."
    if gpus and gpus > request.capacity:
        return (
            f"{asked}that is more GPUs than there are "
            f"(cluster.nodes={request.nodes} x cluster.gpus_per_node={per_node})."
        )
    if gpus and gpus > per_node and gpus % per_node:
        return f"{asked}more GPUs than a node has (cluster.gpus_per_node={per_node}) must be whole nodes."
    if gpus and batch % gpus:
        return f"{asked}the batch cannot be split evenly over {gpus} GPUs."
    if images and limit is not None and images > limit:
        return f"{asked}cluster.max_images_per_gpu={limit} allows less."
    if images and batch % (images * (gpus or 1)):
        return f"{asked}gpus x images_per_gpu = {images * (gpus or 1)} does not divide the batch."
    if images and bn_size and bn_size % images and images % bn_size:
        return f"{asked}of bn_size and images_per_gpu one must be a multiple of the other."
    if find_layout(replace(request, max_images_per_gpu=None)):
        return f"{asked}no layout with cluster.max_images_per_gpu={limit} puts {bn_size} images behind a statistic."
    if find_layout(replace(request, bn_across_nodes=True)):
        return (
            f"{asked}a BN batch would span GPUs of several nodes (cluster.gpus_per_node={per_node}, "
            "cluster.bn_across_nodes=false)."
        )
    group = f" needs groups of {bn_size // images} GPUs," if images else ""
    return (
        f"{asked}a BN batch of {bn_size} images{group} cannot be made of whole GPUs here "
        f"(cluster.nodes={request.nodes}, cluster.gpus_per_node={per_node}); accumulation cannot enlarge a BN batch."
    )


def _ways_out(request: LayoutRequest) -> list[str]:
    """Single changes to the request that can be laid out, the nearest values first."""
    ways = []
    if request.images_per_gpu is not None:
        layout = find_layout(replace(request, images_per_gpu=None))
        if layout:
            ways.append(f"images_per_gpu={layout.images_per_gpu} (or auto)")
    if request.gpus is not None:
        choices = [d for d in _divisors(request.batch) if d <= request.capacity]
        ways += _nearest("gpus", request, choices)
    if request.max_images_per_gpu is not None:
        layout = find_layout(replace(request, max_images_per_gpu=None))
        if layout:
            ways.append(f"cluster.max_images_per_gpu={layout.images_per_gpu}")
    if not request.bn_across_nodes and find_layout(replace(request, bn_across_nodes=True)):
        ways.append("cluster.bn_across_nodes=true")
    if request.gpus and request.gpus > request.capacity:
        nodes = -(-request.gpus // request.gpus_per_node)
        if find_layout(replace(request, nodes=nodes)):
            ways.append(f"cluster.nodes={nodes}")
    if request.bn_size:
        ways += _nearest("bn_size", request, _divisors(request.batch))
    reach = 2 * max(request.bn_size, (request.gpus or 1) * (request.images_per_gpu or 1))
    ways += _nearest("batch", request, range(max(1, request.batch - reach), request.batch + reach + 1))
    if not ways:
        # One image a GPU always works with bn_size=1, so this finds something.
        free = replace(request, gpus=None, images_per_gpu=None)
        ways = [f"gpus=auto images_per_gpu=auto {way}" for way in _nearest("bn_size", free, _divisors(request.batch))]
    return ways


def _nearest(knob: str, request: LayoutRequest, choices: list[int] | range) -> list[str]:
    """`knob=value` for the nearest smaller and the nearest larger choice that can be laid out."""
    now: int = getattr(request, knob)
    smaller = (c for c in reversed(choices) if c < now)
    larger = (c for c in choices if c > now)
    found = (
        next((c for c in side if find_layout(replace(request, **{knob: c}))), None)  # type: ignore[arg-type]
        for side in (smaller, larger)
    )
    return [f"{knob}={value}" for value in found if value is not None]


def _divisors(number: int) -> list[int]:
    """All divisors, rising."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]
