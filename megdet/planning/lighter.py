"""What to ask for after GPUs ran out of memory: the nearest layout of the same experiment that takes clearly less."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from megdet.errors import UserError
from megdet.planning.layout import divisors
from megdet.planning.memory import MODES
from megdet.planning.plan import Plan, make_plan

CLEARLY_LESS = 0.8
"""Of the prediction for what did not fit."""


def lighter_ask(plan: Plan) -> str | None:
    """`images_per_gpu=4 gpus=4 sublinear=true (...)`, or None where nothing would be lighter. What is learned stays."""
    before = plan.memory_gb
    for asked, found in _fewer_at_a_time(plan):
        after = found.memory_gb
        if before is None or after is None:
            if 2 * found.layout.images_per_gpu <= plan.layout.images_per_gpu:
                return f"{asked} (half the images or fewer)"
        elif after <= CLEARLY_LESS * before:
            return f"{asked} (predicted {after:.1f} GB a GPU, and {before:.1f} GB for what did not fit)"
    return None


def _fewer_at_a_time(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Most images first; less of sublinear memory before more."""
    now = plan.layout
    for images in reversed([d for d in divisors(plan.config.batch) if d <= now.images_per_gpu]):
        for sublinear in MODES[MODES.index(now.sublinear) :]:
            for gpus in (now.gpus, "auto"):
                config = copy.deepcopy(plan.config)
                config.images_per_gpu, config.sublinear, config.gpus = images, sublinear, gpus
                try:
                    found = make_plan(config)
                except UserError:
                    continue
                own = found.layout
                asked = [f"images_per_gpu={own.images_per_gpu}"] if own.images_per_gpu != now.images_per_gpu else []
                asked += [f"gpus={own.gpus}"] if own.gpus != now.gpus else []
                asked += [f"sublinear={own.sublinear}".lower()] if own.sublinear != now.sublinear else []
                if asked:
                    yield " ".join(asked), found
                break
