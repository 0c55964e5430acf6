"""What a Slurm cluster has, asked of Slurm itself: partitions, nodes, GPUs, memory, limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OUT_OF_SERVICE = ("down", "drain", "fail", "future", "error", "inval", "perfctrs")
"""Beginnings of sinfo's words for nodes that will not take a job soon."""
NOT_HEARD_OF = "unknown"
"""Its word for nodes that a controller which has just started has yet to hear of; they come within seconds."""
DAY_MIN = 24 * 60

Call = Callable[..., str]
"""Runs a command of Slurm's and gives its output; raises where it fails (`client.call`)."""


@dataclass(frozen=True)
class NodeShape:
    """Nodes of one partition that are alike."""

    partition: str
    is_default: bool
    """Whether Slurm sends jobs here that name no partition."""
    nodes: int
    """In service, and no more than one job may have."""
    gpus_per_node: int
    gpu: str
    """The GPUs' type as Slurm has it (a100); empty where it has none."""
    cpus_per_node: int
    mem_gb_per_node: float
    features: tuple[str, ...]
    """What `--constraint` can ask for."""
    max_time_min: int | None
    """Of a job; None: no limit."""
    limited_by: str = ""
    """The account or QOS whose limits these are, where the nodes themselves would allow more."""

    def describe(self) -> str:
        """In a few words, for a reader."""
        gpus = f"{self.gpus_per_node} {self.gpu + ' ' if self.gpu else ''}GPUs" if self.gpus_per_node else "no GPU"
        limit = "no time limit" if self.max_time_min is None else f"at most {_time_text(self.max_time_min)}"
        default = " (default)" if self.is_default else ""
        by = f" ({self.limited_by})" if self.limited_by else ""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return (
            f"{self.partition}{default}: {nodes} x {gpus}, {self.cpus_per_node} cores, {self.mem_gb_per_node:.0f} GB, "
            f"{limit}{by}"
        )


@dataclass(frozen=True)
class Cluster:
    """What Slurm says that it has."""

    shapes: tuple[NodeShape, ...]
    """Those of the default partition first, otherwise in sinfo's order."""
    max_array_size: int
    """Elements that an array may have."""
    max_submit_jobs: int | None
    """Jobs that the user may have waiting and running, where accounts say so."""
    account: str | None
    """The user's default account, where accounts say so."""

    def describe(self) -> str:
        """One line."""
        return "; ".join(shape.describe() for shape in self.shapes)


def discover(call: Call) -> Cluster:
    """Ask Slurm. Raises what `call` raises where sinfo or scontrol does not answer; accounts may be missing."""
    limits = _partition_limits(call("scontrol", "show", "partition", "--oneliner"))
    listed = call("sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%G|%f|%T")
    shapes = tuple(sorted(_shapes(listed.splitlines(), limits), key=lambda shape: not shape.is_default))
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE)
    account, max_submit_jobs = _association(call)
    # Slurm's number is one more than the highest index; 1001 is its default where it does not say.
    return Cluster(shapes, int(found.group(1)) if found else 1001, max_submit_jobs, account)


def _shapes(lines: Sequence[str], max_nodes: dict[str, int]) -> list[NodeShape]:
    """Lines that differ in the nodes' state alone are one shape."""
    counts: dict[NodeShape, int] = {}
    for line in lines:
        partition, available, limit, nodes, cpus, mem_mb, gres, features, state = line.strip().split("|")
        name = partition.rstrip("*")
        gpu, gpus = _gpus(gres)
        shape = NodeShape(
            partition=name,
            is_default=partition.endswith("*"),
            nodes=0,
            gpus_per_node=gpus,
            gpu=gpu,
            cpus_per_node=_number(cpus),
            mem_gb_per_node=_number(mem_mb) / 1024,
            features=() if features in ("(null)", "") else tuple(features.split(",")),
            max_time_min=minutes_of(limit),
        )
        serves = available == "up" and not state.lower().startswith(OUT_OF_SERVICE)
        counts[shape] = counts.get(shape, 0) + (int(nodes) if serves else 0)
    return [
        NodeShape(**{**shape.__dict__, "nodes": min(count, max_nodes.get(shape.partition, count))})
        for shape, count in counts.items()
        if count
    ]


def _partition_limits(text: str) -> dict[str, int]:
    """The most nodes that one job may have, by partition; unlimited ones are left out."""
    found = {}
    for line in text.splitlines():
        name = re.search(r"\bPartitionName=(\S+)", line)
        most = re.search(r"\bMaxNodes=(\d+)", line)
        if name and most:
            found[name.group(1)] = int(most.group(1))
    return found


def _gpus(gres: str) -> tuple[str, int]:
    """Type and number of a node's GPUs: `gpu:8`, `gpu:a100:4(S:0-1)`, `gpu:a100:2,gpu:v100:2,shard:8`."""
    found = re.findall(r"(?:^|,)gpu(?::([A-Za-z][\w.-]*))?:(\d+)", gres)
    types = [kind for kind, _ in found if kind]
    return "+".join(dict.fromkeys(types)), sum(int(number) for _, number in found)


def minutes_of(limit: str) -> int | None:
    """Slurm's time, `D-HH:MM:SS`, `HH:MM:SS` or `MM:SS`, in whole minutes; None for none."""
    if limit.lower() in ("infinite", "unlimited", "n/a", ""):
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    hours, minutes, _ = parts
    return int(days or 0) * DAY_MIN + hours * 60 + minutes


def _time_text(minutes: int) -> str:
    if minutes % DAY_MIN == 0:
        return f"{minutes // DAY_MIN} d"
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def _number(text: str) -> int:
    """`64`, or `64+` where nodes of a line differ."""
    return int(text.rstrip("+"))


def _association(call: Call) -> tuple[str | None, int | None]:
    """The user's default account and limit of jobs; None where there is no accounting, or it does not answer."""
    try:
        text = call(
            "sacctmgr", "--noheader", "--parsable2", "show", "user", "withassoc",
            "format=User,DefaultAccount,MaxSubmitJobs", f"user={user_name()}",
        )  # fmt: skip
    except RuntimeError:
        return None, None
    for line in text.splitlines():
        _, account, most = (*line.split("|"), "", "", "")[:3]
        return account or None, int(most) if most.isdigit() else None
    return None, None


def user_name() -> str:
    """Whose jobs they are."""
    import getpass
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()
