"""What each run needs of a cluster, and the arrays that runs with equal needs become. Pure: nothing is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megdet.config.cluster import ClusterSettings
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder

DAY_MIN = 24 * 60


@dataclass(frozen=True)
class Resources:
    """What one run needs: nodes, ranks and time, and the site's settings around them."""

    nodes: int
    gpus_per_node: int
    """One task each."""
    time_min: int
    cluster: ClusterSettings

    @classmethod
    def of(cls, plan: Plan, *, hours: float | None = None) -> Resources:
        """`hours`: what the run is predicted to take."""
        cluster = plan.config.cluster
        longest = DAY_MIN if cluster.time_min is None else cluster.time_min
        time_min = longest if hours is None else min(longest, generous_min(hours))
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
    canaries: tuple[RunFolder, ...] = ()
    """Those that the runs wait for."""
    canary_jobs: tuple[str, ...] = ()
    """Of those of them that have not ended yet."""
    after: tuple[str, ...] = ()
    """Jobs that must have ended before it starts, however they end."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The runs whose checkpoints these go on from."""
        return tuple(dict.fromkeys(plan.fork.run_id for plan in self.plans if plan.fork))


def arrays_of(
    plans: Sequence[Plan], *, max_array_size: int, hours: Sequence[float | None] | None = None
) -> list[Array]:
    """Runs grouped by equal resources, in their order; no group larger than an array may be.

    Runs that go on from others come in arrays of their own, after those. `hours`: what each is predicted to take; None
    where that is not known.
    """
    groups: list[tuple[int, Resources, list[Plan]]] = []
    forks: dict[str, int] = {}
    for plan, predicted in zip(plans, hours or [None] * len(plans), strict=True):
        resources = Resources.of(plan, hours=predicted)
        # The one that it goes on from comes before it if it is among them, else it is under way.
        forks[plan.run_id] = forks.get(plan.fork.run_id, 0) + 1 if plan.fork else 0
        for number, known, members in groups:
            if (number, known) == (forks[plan.run_id], resources):
                members.append(plan)
                break
        else:
            groups.append((forks[plan.run_id], resources, [plan]))
    groups.sort(key=lambda group: group[0])
    return [Array(resources, chunk) for _, resources, members in groups for chunk in _chunks(members, max_array_size)]


def generous_min(hours: float) -> int:
    """Twice the prediction, in steps far enough apart that similar runs share an array."""
    limit = 1
    while limit < 2 * hours:
        limit *= 2
    return 60 * limit


def _chunks(plans: Sequence[Plan], size: int) -> Iterator[tuple[Plan, ...]]:
    for first in range(0, len(plans), size):
        yield tuple(plans[first : first + size])
