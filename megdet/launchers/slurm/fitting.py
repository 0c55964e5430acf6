"""Which of a cluster's nodes a run goes to, and what it asks of them; what no partition ever gives is refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.slurm.discovery import Cluster, NodeShape
from megdet.planning.layout import Layout
from megdet.planning.plan import Plan, make_plan
from megdet.planning.shapes import on_any

CPUS_BESIDE_LOADERS = 1
"""Cores of a rank beside those of its loader processes."""


def fit(config: Config, found: Cluster, *, partition: str | None) -> Config:
    """The config with what is `auto` in `cluster` as the numbers of the first nodes that the experiment fits.

    `partition`: where jobs go that name none (the user's SBATCH_PARTITION). `cluster.*` has the last word wherever it
    is given. Where the experiment fits nowhere, the numbers are those of the most GPUs, and planning says why not.
    With `cluster.elastic` it may have fewer GPUs and nodes than it asks for.

    Raises UserError where no nodes are as `cluster.*` asks.
    """
    shapes = _eligible(config.cluster, found, partition)
    for asked in (config, on_any(config)) if config.cluster.elastic else (config,):
        for shape in shapes:
            resolved = _on(asked, shape, default=partition)
            try:
                layout = make_plan(resolved).layout
            except UserError:
                continue
            if not config.cluster.elastic or _has(shape, layout, config.cluster):
                return resolved
    return _on(config, max(shapes, key=lambda shape: shape.nodes * shape.gpus_per_node), default=partition)


def check_fits(plan: Plan, found: Cluster, *, time_min: int, partition: str | None) -> None:
    """Raises UserError where no partition that the plan may go to ever has the nodes or the time that it asks for."""
    cluster, layout = plan.config.cluster, plan.layout
    shapes = _eligible(cluster, found, partition)
    large = [shape for shape in shapes if _has(shape, layout, cluster)]
    if not large:
        raise UserError(
            f"{layout.nodes} nodes x {layout.gpus_per_node} GPUs are more than any job ever gets: "
            f"{'; '.join(shape.describe() for shape in shapes)}. Set cluster.nodes and cluster.gpus_per_node to what "
            "there is, or leave them out (auto)"
        )
    limits = [shape.max_time_min for shape in large]
    if all(limit is not None and limit < time_min for limit in limits):
        longest = max(limit for limit in limits if limit is not None)
        where = next(shape for shape in large if shape.max_time_min == longest)
        by = f", {where.limited_by}" if where.limited_by else ""
        raise UserError(
            f"{time_min} min for a job is more than {where.partition} ever gives ({longest} min{by}): it would wait "
            f"for ever. Use cluster.time_min={longest} or less (a longer run goes on in its next job), or another "
            "cluster.partition or cluster.qos"
        )


def _has(shape: NodeShape, layout: Layout, cluster: ClusterSettings) -> bool:
    enough_gpus = not cluster.request_gpus or shape.gpus_per_node >= layout.gpus_per_node
    return shape.nodes >= layout.nodes and enough_gpus


def _eligible(cluster: ClusterSettings, found: Cluster, partition: str | None) -> list[NodeShape]:
    """The nodes that jobs with these settings may go to. Raises UserError where there are none."""
    wanted = cluster.partition or partition
    names = wanted.split(",") if wanted else []
    known = {shape.partition for shape in found.shapes}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"cluster.partition={wanted}: Slurm has no {', '.join(unknown)} that you may use; it has "
            f"{', '.join(sorted(known)) or 'no partition in service'}"
        )
    shapes = [shape for shape in found.shapes if not names or shape.partition in names]
    if cluster.constraint and cluster.constraint.replace("-", "").replace("_", "").isalnum():
        shapes = [shape for shape in shapes if cluster.constraint in shape.features]
    if cluster.request_gpus:
        with_gpus = [shape for shape in shapes if shape.gpus_per_node]
        if not with_gpus:
            raise UserError(
                "no nodes with GPUs are there for this: " + (_listed(shapes) or _listed(found.shapes)) + ". For CPU "
                "processes in their place: cluster.request_gpus=false cluster.gpus_per_node=N; or set "
                "cluster.partition and cluster.constraint to nodes that have some (megdet cluster)"
            )
        shapes = with_gpus
    if not shapes:
        raise UserError(f"no nodes are as cluster.partition and cluster.constraint ask: {_listed(found.shapes)}")
    return shapes


def _listed(shapes: Sequence[NodeShape]) -> str:
    return "; ".join(shape.describe() for shape in shapes)


def _on(config: Config, shape: NodeShape, *, default: str | None) -> Config:
    config = copy.deepcopy(config)
    cluster = config.cluster
    if cluster.nodes == "auto":
        cluster.nodes = shape.nodes
    if cluster.gpus_per_node == "auto":
        cluster.gpus_per_node = shape.gpus_per_node or 1
    if cluster.partition is None and default is None and not shape.is_default:
        cluster.partition = shape.partition
    if cluster.time_min is None and shape.max_time_min is not None:
        cluster.time_min = min(shape.max_time_min, 24 * 60)
    if cluster.cpus_per_gpu is None:
        # Slurm gives a task one core where nothing is said, and loader processes would share it with their rank.
        share = shape.cpus_per_node // max(1, int(cluster.gpus_per_node))
        cluster.cpus_per_gpu = max(1, min(share, config.data.workers + CPUS_BESIDE_LOADERS))
    return config
