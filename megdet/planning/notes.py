"""What a reader of a plan should know about how it was laid out, and would not see in its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from megdet.config.schema import Config
from megdet.model.settings import OFFLOAD
from megdet.planning.layout import Layout
from megdet.planning.memory import memory_gb
from megdet.planning.schedule import Schedule
from megdet.settings.counted import counted
from megdet.settings.own_part import TARGET

SUBLINEAR_FROM_BN_SIZE = 32
"""Table 3: "When the BN size >= 32, the sublinear memory is applied"."""


def notes_on(config: Config, layout: Layout, schedule: Schedule, *, dirty: bool) -> list[str]:
    """One sentence each; `dirty`: the code differs from its commit."""
    notes = []
    own_parts = list(_own_parts(asdict(config)))
    if own_parts:
        notes.append(f"parts of your own, imported by the ranks: {', '.join(own_parts)}")
    if config.model.init_from is not None:
        notes.append(f"training begins from the weights of {config.model.init_from}")
    if config.precision == "tf32" and not config.cluster.request_gpus:
        notes.append("precision=tf32 is one of GPUs: CPU processes compute in fp32, and the run has an id of its own")
    if layout.sublinear:
        asked = f"bn_size >= {SUBLINEAR_FROM_BN_SIZE}, as in the paper"
        if config.sublinear != "auto":
            asked = "as asked"
        elif config.bn_size < SUBLINEAR_FROM_BN_SIZE:
            asked = f"without it, no layout fits cluster.gpu_memory_gb={config.cluster.gpu_memory_gb:g}"
        notes.append(f"sublinear memory is on ({asked}): less memory, slower; the result is the same")
    if layout.sublinear == OFFLOAD:
        notes.append(
            "feature maps wait for backward in main memory (sublinear=offload): predicted hours do not have what "
            "moving them takes"
        )
    room_gb = config.cluster.gpu_memory_gb
    takes_gb = memory_gb(config, images=layout.images_per_gpu, sublinear=layout.sublinear)
    if room_gb is not None and takes_gb is not None and takes_gb > room_gb:
        notes.append(
            f"images_per_gpu={layout.images_per_gpu}, as asked, is predicted to take {takes_gb:.1f} GB, and a GPU has "
            f"cluster.gpu_memory_gb={room_gb:g}"
        )
    if config.noise_scale_every and layout.independent_gradients < 2:
        way_out = "images_per_gpu" if layout.bn_splits > 1 or not config.bn_size else "bn_size"
        notes.append(
            f"noise_scale_every={config.noise_scale_every} finds nothing: a step of batch={config.batch} is one "
            f"gradient here; use a smaller {way_out}, so that it is the mean of several"
        )
    if layout.accumulation > 1:
        notes.append(
            f"{layout.accumulation} passes per step stand in for {layout.gpus * layout.accumulation} GPUs: "
            "same images behind every statistic, more time"
        )
    if layout.bn_group > layout.gpus_per_node:
        notes.append(f"BN groups of {layout.bn_group} GPUs span nodes: each BN layer talks over the network")
    if schedule.warmup_steps:
        steps = counted(schedule.warmup_steps, "step")
        notes.append(f"warm-up from {schedule.warmup_lr:g} to {schedule.lr:g} over {steps}")
    train_images = config.data.train_images or 0
    left_over = train_images - schedule.steps_per_epoch * config.batch
    if left_over:
        notes.append(f"{left_over} of {train_images} images are left over in every epoch")
    if dirty:
        notes.append("the code differs from the commit that is recorded")
    return notes


def _own_parts(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`model.backbone my_package.MyBackbone` for each part that is a user's own, and none of megdet's switches."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            if name != "custom":
                yield from _own_parts(value, f"{prefix}{name}.")
            elif not value[TARGET].startswith("megdet."):
                yield f"{prefix.removesuffix('.')} {value[TARGET]}"
