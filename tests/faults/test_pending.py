"""Jobs that wait: each of Slurm's reasons is one to wait by, one to act on, or one that never goes away."""

from __future__ import annotations

import pytest

from megdet.launchers.slurm.pending import Wait, why_it_waits
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from tests.launchers.conftest import Command
from tests.launchers.slurm.submitted import NAME, submit
from tests.runs.folders import stand_of

REASONS = {
    Wait.WAITS: (
        "Priority", "Resources", "None", "", "Dependency", "BeginTime", "Licenses", "JobArrayTaskLimit", "Cleaning",
        "Prolog", "Reservation", "WaitingForScheduling", "AssocGrpCpuLimit", "AssocGrpJobsLimit", "AssocMaxJobsLimit",
        "AssociationJobLimit", "QOSGrpGRES", "QOSGrpNodeLimit", "QOSJobLimit", "QOSMaxJobsPerUserLimit",
        "QOSMaxGRESPerUser", "MaxGRESPerAccount", "QOSMaxCpuPerUserLimit", "SomethingNew",
    ),
    Wait.HELD: (
        "JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "launch failed requeued held", "PartitionDown",
        "PartitionInactive", "ReqNodeNotAvail, UnavailableNodes:n[1-2]", "NodeDown", "PartitionNodeLimit",
        "(Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions)",
        "AssocGrpCPUMinutesLimit", "AssocGrpWallLimit", "QOSGrpGRESMinutes", "QOSUsageThreshold",
        "AssociationTimeLimit", "QOSResourceLimit", "SystemFailure", "JobLaunchFailure", "InactiveLimit",
    ),
    Wait.NEVER: (
        "PartitionTimeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed",
        "DependencyNeverSatisfied", "ReservationDeleted", "AssocMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit",
        "AssocMaxWallDurationPerJobLimit", "AssocMaxGRESPerJob", "QOSMaxWallDurationPerJobLimit", "QOSMaxGRESPerNode",
        "QOSMaxNodePerJobLimit", "QOSMinGRES", "MaxMemPerLimit", "PartitionConfig",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "wait"), [(reason, wait) for wait, reasons in REASONS.items() for reason in reasons]
)
def test_what_a_reason_to_wait_means(reason: str, wait: Wait) -> None:
    found, advice = why_it_waits(reason)
    assert found is wait and bool(advice) == (wait is not Wait.WAITS)


def test_a_job_that_can_never_start_says_so_with_the_way_out(planned_run: RunFolder, command: Command) -> None:
    submit(planned_run)
    for reason, said in (
        ("Resources", "job 7 waits"),
        (
            "PartitionTimeLimit",
            "job 7 can never start: PartitionTimeLimit (its time limit is more than the partition's",
        ),
        ("JobHeldUser", "job 7 waits for somebody to act: JobHeldUser (`scontrol release 7` lets it go)"),
    ):
        command("squeue", f"echo '7|PENDING|0|{NAME}|{reason}|'")
        stand = stand_of(planned_run)
        assert stand.status == Status.QUEUED and stand.why.startswith(said)
