"""Hours of a plan by the paper's Table 3: a small model fitted to its 20 training times (`planning.cost_fit`).

It holds for the paper's detector, data and GPUs only.
"""

from __future__ import annotations

from dataclasses import dataclass

from megdet.planning.layout import Layout
from megdet.planning.plan import Plan

GRADIENT_GB = 0.165
"""float32 gradient of the paper's detector (41 million parameters)."""
NETWORK_GB_PER_S = 12.5
"""Of a node, for the all-reduce. Assumed (100 Gb/s): Table 3 ends at 16 nodes, and its times show no price of it."""


@dataclass(frozen=True)
class CostModel:
    """Seconds of one optimizer step by layout, plus hours of every run that no number of GPUs takes away."""

    image_s: float
    """One image forward and backward on one GPU."""
    sublinear_s: float
    """More for an image with sublinear memory."""
    bn_wait_s: float
    """More for a pass, for each other GPU of the BN group and divided by the images per GPU: GPUs with one image
    each wait longest for each other. The form is what the times show, not theory."""
    constant_hours: float
    """Of every run: `normal` and `long` of one row differ by less than their epochs do."""

    def step_s(self, layout: Layout) -> float:
        """Seconds of one optimizer step."""
        images = layout.images_per_gpu
        one_pass = images * (self.image_s + self.sublinear_s * bool(layout.sublinear))
        one_pass += self.bn_wait_s * (layout.bn_group - 1) / images
        return layout.accumulation * one_pass + all_reduce_s(layout)

    def hours(self, plan: Plan) -> float:
        """Hours of the whole run."""
        return self.constant_hours + plan.schedule.steps * self.step_s(plan.layout) / 3600


TABLE3 = CostModel(image_s=0.7051, sublinear_s=0.089, bn_wait_s=0.0964, constant_hours=1.603)
"""Fitted to the paper's Table 3; `python -m megdet.planning.cost_fit` makes these numbers again."""


def all_reduce_s(layout: Layout) -> float:
    """Seconds of a step in which the nodes sum their gradients (a ring sends each value twice)."""
    return 2 * (layout.nodes - 1) / layout.nodes * GRADIENT_GB / NETWORK_GB_PER_S
