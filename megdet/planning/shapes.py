"""Every layout that an experiment can have: the same batch and BN size, so the same result, for other hours."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from megdet.config.schema import Config
from megdet.planning.layout import Layout, all_layouts
from megdet.planning.plan import Plan, layout_request, make_plan


@dataclass(frozen=True)
class Shapes:
    """The plans of one experiment, one for each layout."""

    chosen: Plan
    """What is planned where nothing more is asked."""
    plans: tuple[Plan, ...]
    """All, most GPUs first; the chosen one's layout is among them."""
    too_large: int
    """Layouts that are left out: by prediction, they do not fit `cluster.gpu_memory_gb`."""


def shapes_of(config: Config, *, commit: str = "unknown", dirty: bool = False) -> Shapes:
    """The plans of every layout that a config leaves open; what it asks for (`gpus`, `sublinear`) is kept to.

    Raises UserError, as `make_plan` does, where there is none.
    """
    chosen = make_plan(config, commit=commit, dirty=dirty)
    layouts: dict[Layout, None] = {}
    too_large = 0
    for sublinear in (False, True) if config.sublinear == "auto" else (config.sublinear,):
        request = layout_request(chosen.config, sublinear=sublinear)
        found = list(all_layouts(request))
        layouts |= dict.fromkeys(found)
        unlimited = replace(request, max_images_per_gpu=chosen.config.cluster.max_images_per_gpu)
        too_large += sum(1 for _ in all_layouts(unlimited)) - len(found)
    plans = [_with(chosen.config, layout, commit=commit, dirty=dirty) for layout in layouts]
    return Shapes(chosen, tuple(sorted(plans, key=lambda plan: -plan.layout.gpus)), too_large)


def asked_of(plan: Plan) -> str:
    """The overrides that ask for a plan's layout and no other."""
    layout = plan.layout
    sublinear = str(layout.sublinear).lower()
    return f"gpus={layout.gpus} images_per_gpu={layout.images_per_gpu} sublinear={sublinear}"


def on_any(config: Config) -> Config:
    """The config with as many GPUs and nodes as there are, instead of those that it asks for (`cluster.elastic`)."""
    config = copy.deepcopy(config)
    config.gpus = config.images_per_gpu = config.cluster.nodes = "auto"
    return config


def _with(config: Config, layout: Layout, *, commit: str, dirty: bool) -> Plan:
    config = copy.deepcopy(config)
    config.gpus, config.images_per_gpu, config.sublinear = layout.gpus, layout.images_per_gpu, layout.sublinear
    return make_plan(config, commit=commit, dirty=dirty)
