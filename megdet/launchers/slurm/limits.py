"""What accounts and QOSs allow a job at most: Slurm lets a job that asks for more wait for ever.

`sbatch --test-only` tells of limits of a QOS with DenyOnLimit alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from megdet.config.cluster import ClusterSettings
from megdet.launchers.slurm.discovery import Call, Cluster, NodeShape, minutes_of, user_name
from megdet.launchers.slurm.dispatch import defaults_of_sbatch

NORMAL = "normal"
"""The QOS of jobs where nothing names another."""


@dataclass(frozen=True)
class Limit:
    """What one account or QOS allows a job; None: any."""

    name: str
    """For a reader: `QOS short`."""
    time_min: int | None = None
    nodes: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Limits:
    """All that may concern the user's jobs; empty where Slurm enforces none."""

    qos: Mapping[str, Limit] = field(default_factory=dict)
    accounts: Mapping[str, Limit] = field(default_factory=dict)
    default_account: str = ""
    default_qos: Mapping[str, str] = field(default_factory=dict)
    """By account."""
    partition_qos: Mapping[str, str] = field(default_factory=dict)

    def within(self, found: Cluster, cluster: ClusterSettings, *, gpus_per_node: int | None = None) -> Cluster:
        """What of a cluster one job with these settings may have.

        `gpus_per_node`: those that it takes of each node, where that is known; else as many as a node has.
        """
        shapes = tuple(self._within(shape, cluster, gpus_per_node) for shape in found.shapes)
        return replace(found, shapes=shapes)

    def _within(self, shape: NodeShape, cluster: ClusterSettings, gpus_per_node: int | None) -> NodeShape:
        limits = self._of_a_job(shape.partition, cluster)
        time_min, nodes, gpus = (_first(limits, kind) for kind in ("time_min", "nodes", "gpus"))
        said = []
        if time_min and (shape.max_time_min is None or time_min[0] < shape.max_time_min):
            shape = replace(shape, max_time_min=time_min[0])
            said.append(time_min[1])
        if gpus and shape.gpus_per_node and cluster.request_gpus:
            shape = replace(shape, gpus_per_node=min(shape.gpus_per_node, gpus[0]))
            of_gpus = gpus[0] // max(1, gpus_per_node or shape.gpus_per_node)
            nodes = min(nodes or (of_gpus, gpus[1]), (of_gpus, gpus[1]))
        if nodes and nodes[0] < shape.nodes:
            shape = replace(shape, nodes=nodes[0])
            said.append(nodes[1])
        return replace(shape, limited_by=" and ".join(dict.fromkeys(said)))

    def _of_a_job(self, partition: str, cluster: ClusterSettings) -> list[Limit]:
        """In the order in which Slurm lets one outweigh the next."""
        defaults = defaults_of_sbatch(cluster)
        account = cluster.account or defaults.get("SBATCH_ACCOUNT") or self.default_account
        qos = cluster.qos or defaults.get("SBATCH_QOS") or self.default_qos.get(account) or NORMAL
        found = (self.qos.get(self.partition_qos.get(partition, "")), self.qos.get(qos), self.accounts.get(account))
        return [limit for limit in found if limit]


def read_limits(call: Call) -> Limits:
    """Ask Slurm; empty where it keeps no accounts, or enforces no limits. Raises what `call` raises for scontrol."""
    enforced = re.search(r"^AccountingStorageEnforce\s*=\s*(\S+)", call("scontrol", "show", "config"), re.MULTILINE)
    if not enforced or not {"limits", "safe"} & set(enforced.group(1).split(",")):
        return Limits()
    try:
        of_qos = _table(call, "qos", ("Name", "MaxWall", "MaxTRES", "GrpTRES"))
        of_users = _table(
            call, "assoc", ("Account", "DefaultQOS", "MaxWall", "MaxTRES", "GrpTRES"), f"user={user_name()}"
        )
        default = _table(call, "user", ("DefaultAccount",), f"user={user_name()}")
    except RuntimeError:
        return Limits()
    partitions = re.findall(r"\bPartitionName=(\S+).*?\bQoS=(\S+)", call("scontrol", "show", "partition", "--oneliner"))
    return Limits(
        qos={name: _limit(f"QOS {name}", *values) for name, *values in of_qos},
        accounts={name: _limit(f"account {name}", *values) for name, _, *values in of_users},
        default_account=default[0][0] if default else "",
        default_qos={name: qos for name, qos, *_ in of_users if qos},
        partition_qos={partition: qos for partition, qos in partitions if qos != "N/A"},
    )


def _first(limits: Sequence[Limit], kind: str) -> tuple[int, str] | None:
    """The first limit of a kind and whose it is."""
    return next(((most, limit.name) for limit in limits if (most := getattr(limit, kind)) is not None), None)


def _table(call: Call, what: str, columns: Sequence[str], *conditions: str) -> list[list[str]]:
    listed = call("sacctmgr", "--noheader", "--parsable2", "show", what, f"format={','.join(columns)}", *conditions)
    return [line.split("|") for line in listed.splitlines() if line.count("|") == len(columns) - 1]


def _limit(name: str, wall: str, per_job: str, of_all: str) -> Limit:
    def least(resource: str) -> int | None:
        numbers = re.findall(rf"(?:^|,){re.escape(resource)}=(\d+)", f"{per_job},{of_all}")
        return min(map(int, numbers), default=None)

    return Limit(name, minutes_of(wall), least("node"), least("gres/gpu"))
