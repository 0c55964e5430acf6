"""What each run needs of a cluster, and the arrays that runs with equal needs become. Pure: nothing is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megdet.config.schema import ClusterConfig
from megdet.errors import UserError
from megdet.planning.plan import Plan


@dataclass(frozen=True)
class Resources:
    """What one run needs: nodes, ranks and time, and the site's settings around them."""

    nodes: int
    gpus_per_node: int
    """One task each."""
    time_min: int
    cluster: ClusterConfig

    @classmethod
    def of(cls, plan: Plan, *, hours: float | None = None) -> Resources:
        """`hours`: what the run is predicted to take. Raises UserError where the site's settings make no sense."""
        cluster = plan.config.cluster
        if cluster.time_min < 1 or cluster.time_min * 60 <= cluster.signal_delay_s:
            raise UserError(
                f"cluster.time_min={cluster.time_min}: a job of {cluster.time_min} min would be told to stop "
                f"cluster.signal_delay_s={cluster.signal_delay_s} s before its end, that is at once; raise time_min or "
                "lower signal_delay_s"
            )
        if cluster.signal_delay_s < 10:
            raise UserError(f"cluster.signal_delay_s={cluster.signal_delay_s}: use at least 10, for a checkpoint")
        if cluster.array_parallelism < 1:
            raise UserError(f"cluster.array_parallelism={cluster.array_parallelism}: use at least 1")
        time_min = min(cluster.time_min, _generous_min(hours)) if hours is not None else cluster.time_min
        return cls(plan.layout.nodes, plan.layout.gpus_per_node, time_min, cluster)

    def describe(self) -> str:
        """In a few words, for a reader."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{nodes} x {self.gpus_per_node} GPUs, {self.time_min} min"


@dataclass(frozen=True)
class Array:
    """Runs with equal resources, in one submission; a job array where they are several."""

    resources: Resources
    plans: tuple[Plan, ...]


def arrays_of(
    plans: Sequence[Plan], *, max_array_size: int, hours: Sequence[float | None] | None = None
) -> list[Array]:
    """Runs grouped by equal resources, in their order; no group larger than an array may be.

    `hours`: what each is predicted to take; None where that is not known.
    """
    groups: list[tuple[Resources, list[Plan]]] = []
    for plan, predicted in zip(plans, hours or [None] * len(plans), strict=True):
        resources = Resources.of(plan, hours=predicted)
        for known, members in groups:
            if known == resources:
                members.append(plan)
                break
        else:
            groups.append((resources, [plan]))
    return [Array(resources, chunk) for resources, members in groups for chunk in _chunks(members, max_array_size)]


def _generous_min(hours: float) -> int:
    """Twice the prediction, in steps far enough apart that similar runs share an array."""
    limit = 1
    while limit < 2 * hours:
        limit *= 2
    return 60 * limit


def _chunks(plans: Sequence[Plan], size: int) -> Iterator[tuple[Plan, ...]]:
    for first in range(0, len(plans), size):
        yield tuple(plans[first : first + size])
