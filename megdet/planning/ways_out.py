"""Why a request has no layout, and what to ask for instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from megdet.errors import UserError
from megdet.planning.layout import LayoutRequest, divisors, find_layout


def refusal(request: LayoutRequest) -> UserError:
    """The error for a request without a layout: the rule that it breaks, and values that would work."""
    ways = _ways_out(request)
    return UserError(_why_not(request) + (f"\nWhat would work: {'; '.join(ways)}." if ways else ""))


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
        return f"{asked}{request.max_images_by} allows less."
    if images and batch % (images * (gpus or 1)):
        return f"{asked}gpus x images_per_gpu = {images * (gpus or 1)} does not divide the batch."
    if images and bn_size and bn_size % images and images % bn_size:
        return f"{asked}of bn_size and images_per_gpu one must be a multiple of the other."
    if find_layout(replace(request, max_images_per_gpu=None)):
        return f"{asked}no layout with {request.max_images_by} puts {bn_size} images behind a statistic."
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
    ways: list[str] = []
    if request.images_per_gpu is not None:
        layout = find_layout(replace(request, images_per_gpu=None))
        if layout:
            ways.append(f"images_per_gpu={layout.images_per_gpu} (or auto)")
    if request.gpus is not None:
        choices = [d for d in divisors(request.batch) if d <= request.capacity]
        ways += _nearest("gpus", request, choices)
    if request.max_images_per_gpu is not None:
        layout = find_layout(replace(request, max_images_per_gpu=None))
        if layout and request.max_images_by.startswith("cluster.max_images_per_gpu"):
            ways.append(f"cluster.max_images_per_gpu={layout.images_per_gpu}")
        elif layout:
            ways.append("cluster.gpu_memory_gb=null, which tries it all the same")
    for sublinear, most in request.max_images_if_sublinear.items():
        if find_layout(replace(request, max_images_per_gpu=most)):
            ways.append(f"sublinear={sublinear}".lower())
            break
    if not request.bn_across_nodes and find_layout(replace(request, bn_across_nodes=True)):
        ways.append("cluster.bn_across_nodes=true")
    if request.gpus and request.gpus > request.capacity:
        nodes = -(-request.gpus // request.gpus_per_node)
        if find_layout(replace(request, nodes=nodes)):
            ways.append(f"cluster.nodes={nodes}")
    if request.bn_size:
        ways += _nearest("bn_size", request, divisors(request.batch))
    ways += _nearest("batch", request, _batches_near(request))
    if not ways:
        # One image a GPU always works with bn_size=1, so this finds something.
        free, on_auto = replace(request, gpus=None, images_per_gpu=None), "gpus=auto images_per_gpu=auto"
        if find_layout(free):
            return [on_auto]
        ways = [f"{on_auto} {way}" for way in _nearest("bn_size", free, divisors(request.batch))]
    return ways


def _batches_near(request: LayoutRequest) -> range:
    """Batches to suggest: multiples of the BN batch and of the GPUs' images, near the one asked for."""
    on_gpus = (request.gpus or 1) * (request.images_per_gpu or 1)
    unit = math.lcm(request.bn_size or 1, on_gpus)
    reach = 2 * max(request.bn_size, on_gpus)
    lowest = max(1, -(-(request.batch - reach) // unit))
    return range(lowest * unit, min(request.batch + reach, request.most_batch) + 1, unit)


def _nearest(knob: str, request: LayoutRequest, choices: Sequence[int]) -> list[str]:
    """`knob=value` for the nearest smaller and the nearest larger choice that can be laid out."""
    now: int = getattr(request, knob)
    smaller = (c for c in reversed(choices) if c < now)
    larger = (c for c in choices if c > now)
    found = (
        next((c for c in side if find_layout(replace(request, **{knob: c}))), None)  # type: ignore[arg-type]
        for side in (smaller, larger)
    )
    return [f"{knob}={value}" for value in found if value is not None]
