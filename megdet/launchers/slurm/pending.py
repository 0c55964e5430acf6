"""Why a job waits, by Slurm's word for it: whether it will start by itself, needs somebody, or never starts.

The words are those of squeue's manual ("Job reason codes") and of the library that prints them (Slurm 22.05).
"""

from __future__ import annotations

import re
from enum import Enum


class Wait(Enum):
    """What a reason to wait means for a job."""

    WAITS = "waits"
    """It starts by itself, when its turn comes or others end."""
    HELD = "waits for somebody to act"
    """Not before a person does something: lifts a hold, brings nodes back, grants more hours."""
    NEVER = "can never start"
    """Not as it was submitted."""


_NEVER = (
    (r"(Assoc|QOS)Max\w*(PerJob|PerNode)(Limit)?", "it asks for more than one job may have: ask for less, or another "
     "cluster.qos or cluster.account"),
    (r"QOSMin\w+", "it asks for less than its QOS wants: another cluster.qos"),
    (r"PartitionTimeLimit", "its time limit is more than the partition's: lower cluster.time_min"),
    (r"PartitionConfig|PartitionMinNodes|PartitionMaxNodes", "the partition takes no job of its size: "
     "cluster.nodes, cluster.partition"),
    (r"BadConstraints", "no node is as it asks: cluster.constraint, cluster.gpus_per_node, cluster.mem_gb_per_gpu"),
    (r"InvalidAccount|AccountNotAllowed", "another cluster.account"),
    (r"InvalidQOS|QOSNotAllowed", "another cluster.qos"),
    (r"DependencyNeverSatisfied", "the job that it waits for has failed: cancel it, and launch again"),
    (r"ReservationDeleted|RequiresReservation", "+cluster.sbatch_options.reservation=NAME"),
    (r"MaxMemPerLimit", "less memory: cluster.mem_gb_per_gpu"),
    (r"TimeLimit|Deadline", "cancel it, and launch again"),
)  # fmt: skip
_HELD = (
    (r"JobHeldUser|JobHoldMaxRequeue|RequeueExitHold|launch failed requeued held", "`scontrol release JOB` lets it go"),
    (r"JobHeldAdmin", "ask the administrators, who hold it"),
    (r"PartitionDown|PartitionInactive", "the partition is out of service: wait, or another cluster.partition"),
    (r"ReqNodeNotAvail|NodeDown|DownNodes|PartitionNodeLimit|FrontEndDown|Nodes required for job are DOWN",
     "nodes that it needs are down or reserved: `sinfo -R` says why"),
    (r"(Assoc|QOS)Grp\w*(Minutes(Limit)?|WallLimit)|(Association|QOS)(Time|Resource)Limit|QOSUsageThreshold|"
     r"AccountingPolicy", "the hours of its account or QOS are used up"),
    (r"JobLaunchFailure|SystemFailure|InactiveLimit|BurstBufferOperation", "Slurm could not start it: `scontrol show "
     "job JOB`, or ask the administrators"),
)  # fmt: skip


def why_it_waits(reason: str) -> tuple[Wait, str]:
    """What Slurm's reason means, and what to do; a word that is not known here is taken for one to wait by."""
    for wait, known in ((Wait.NEVER, _NEVER), (Wait.HELD, _HELD)):
        for pattern, advice in known:
            if re.match(rf"\(?({pattern})\b", reason):
                return wait, advice
    return Wait.WAITS, ""
