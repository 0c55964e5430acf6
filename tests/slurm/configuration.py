"""The text of a test cluster's configuration files (Slurm 22.05 or newer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PARTITION, PREEMPTIBLE = "gpu", "preemptible"
"""The default partition, and one whose jobs give way to it."""
MAX_ARRAY_SIZE = 5
"""Small, so that a sweep of six has to come as two arrays."""
CLUSTER = "megdet"

_SLURM = """\
ClusterName={cluster}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
AuthType=auth/munge
# A requeued job waits until the old credential has expired: 120 s if not said, or if less than 5 is.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# Listen on the loopback alone.
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2

SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={max_array_size}
FirstJobId={first_job_id}
# Finished jobs stay in squeue for so many seconds.
MinJobAge=60

# A node that does not answer for this long is down; a killed job has KillWait to end.
SlurmdTimeout=8
SlurmctldTimeout=8
MessageTimeout=5
KillWait=10
InactiveLimit=0

JobAcctGatherType=jobacct_gather/none
{accounting}

GresTypes=gpu
{nodes}
PartitionName={partition} Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
PartitionName={preemptible} Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=12 MaxTime=INFINITE State=UP
"""

_NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=limits,qos"""

_DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""


@dataclass(frozen=True)
class Node:
    """One pretended machine of the cluster."""

    name: str
    port: int


def slurm_conf(
    folder: Path,
    *,
    nodes: Sequence[Node],
    gpus_per_node: int,
    controller_port: int,
    first_job_id: int,
    accounting_port: int | None,
    max_array_size: int,
) -> str:
    """slurm.conf: nodes of 64 cores on this host, two partitions, short intervals; accounting where it has a port."""
    accounting = _NO_ACCOUNTING if accounting_port is None else _ACCOUNTING.format(port=accounting_port, folder=folder)
    lines = (
        f"NodeName={node.name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={node.port} CPUs=64 RealMemory=512000 "
        f"Gres=gpu:{gpus_per_node} State=UNKNOWN"
        for node in nodes
    )
    return _SLURM.format(
        cluster=CLUSTER,
        controller_port=controller_port,
        folder=folder,
        max_array_size=max_array_size,
        first_job_id=first_job_id,
        accounting=accounting,
        nodes="\n".join(lines),
        partition=PARTITION,
        preemptible=PREEMPTIBLE,
    )


def gres_conf(folder: Path, *, nodes: Sequence[Node], gpus_per_node: int) -> str:
    """gres.conf: each GPU is a device file; without the files Slurm counts none and drains the node."""
    return "".join(f"NodeName={node.name} Name=gpu File={folder}/dev/gpu[0-{gpus_per_node - 1}]\n" for node in nodes)


def slurmdbd_conf(folder: Path, *, port: int, database_port: int, password: str) -> str:
    """slurmdbd.conf; Slurm refuses it where others may read it."""
    return _DATABASE.format(folder=folder, port=port, database_port=database_port, password=password)
