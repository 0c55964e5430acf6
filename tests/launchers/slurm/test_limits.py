"""What accounts and QOSs never give is planned around, or refused; so is what Slurm says it would not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.slurm.client import SlurmClient
from megdet.launchers.slurm.discovery import discover
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.limits import Limit, Limits, read_limits
from megdet.planning.plan import Plan, make_plan
from tests.launchers.conftest import Command
from tests.launchers.slurm.test_discovery import SINFO

SCONTROL = """case "$2" in
config) echo "AccountingStorageEnforce = associations,limits,qos"; echo "MaxArraySize            = 501";;
partition) echo "PartitionName=gpu AllowGroups=ALL QoS=N/A MaxNodes=UNLIMITED"
           echo "PartitionName=long QoS=long MaxNodes=UNLIMITED";;
esac"""
SACCTMGR = """case "$4" in
qos) echo 'normal||||'; echo 'short|00:30:00|node=2||'; echo 'half||gres/gpu=6|gres/gpu=100,node=3|'
     echo 'long|7-00:00:00|||';;
assoc) echo 'vision|half|06:00:00|||'; echo 'other||||node=9|';;
user) echo 'vision|' ;;
esac | sed 's/|$//'"""


@pytest.fixture(autouse=True)
def _slurm(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SBATCH_QOS", "SBATCH_ACCOUNT", "SBATCH_PARTITION"):
        monkeypatch.delenv(name, raising=False)
    command("sinfo", SINFO)
    command("scontrol", SCONTROL)
    command("sacctmgr", SACCTMGR)
    command("sbatch", "cat > script; echo \"$@\" >> asked; echo 'sbatch: Job 7 to start at 2026-11-27' >&2")


def settled(config: Config) -> Plan:
    """Planned and checked by a launcher of its own."""
    launcher = SlurmLauncher()
    plan = make_plan(launcher.resolve(config))
    launcher.check(plan)
    return plan


def asked(batch: int = 64, **cluster: object) -> Config:
    return Config(batch=batch, bn_size=16, cluster=ClusterSettings(**{"partition": "gpu", **cluster}))  # type: ignore[arg-type]


def test_limits_are_read_from_accounts() -> None:
    limits = read_limits(SlurmClient().call)
    assert limits == Limits(
        qos={
            "normal": Limit("QOS normal"),
            "short": Limit("QOS short", time_min=30, nodes=2),
            "half": Limit("QOS half", nodes=3, gpus=6),
            "long": Limit("QOS long", time_min=7 * 24 * 60),
        },
        accounts={"vision": Limit("account vision", time_min=360), "other": Limit("account other", nodes=9)},
        default_account="vision",
        default_qos={"vision": "half"},
        partition_qos={"long": "long"},
    )


@pytest.mark.parametrize(
    ("cluster", "environment", "nodes", "gpus", "time_min", "by"),
    [
        # 6 GPUs in all are one node of 4; time is the account's, for its QOS sets none.
        ({}, {}, 1, 4, 360, "account vision and QOS half"),
        ({"qos": "short"}, {}, 2, 4, 30, "QOS short"),
        ({}, {"SBATCH_QOS": "short"}, 2, 4, 30, "QOS short"),
        ({"account": "other"}, {}, 6, 4, 2880, ""),
        # The partition's QOS outweighs the account.
        ({"partition": "long"}, {}, 1, 6, 7 * 24 * 60, "QOS long and QOS half"),
    ],
)
def test_a_job_may_have_what_its_partition_qos_and_account_allow(
    cluster: dict[str, object],
    environment: dict[str, str],
    nodes: int,
    gpus: int,
    time_min: int,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = asked(**cluster).cluster
    limited = read_limits(SlurmClient().call).within(discover(SlurmClient().call), settings)
    shape = next(shape for shape in limited.shapes if shape.partition == settings.partition)
    assert (shape.nodes, shape.gpus_per_node, shape.max_time_min, shape.limited_by) == (nodes, gpus, time_min, by)


def test_a_run_is_planned_within_the_limits() -> None:
    plan = settled(asked(64, qos="short"))
    assert (plan.layout.nodes, plan.layout.gpus, plan.config.cluster.time_min) == (2, 8, 30)
    assert plan.layout.accumulation > 1, "a batch of 64 on 8 GPUs"


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"qos": "short", "time_min": 60}, r"60 min .* gpu ever gives \(30 min, QOS short\).*cluster.time_min=30"),
        ({"qos": "short", "nodes": 4, "gpus_per_node": 4}, r"4 nodes x 4 GPUs.*2 nodes x 4 a100 GPUs.*QOS short"),
        # What a file says in numbers, and no time.
        ({"qos": "short", "nodes": 1, "gpus_per_node": 4}, r"1440 min .*30 min, QOS short"),
    ],
)
def test_what_a_qos_never_gives_is_refused(cluster: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settled(asked(64, **cluster))


def test_limits_that_are_not_enforced_or_not_told_are_none(command: Command) -> None:
    command("sacctmgr", "echo 'slurmdbd does not answer' >&2; exit 1")
    assert read_limits(SlurmClient().call) == Limits()
    command("scontrol", "echo 'AccountingStorageEnforce = associations'")
    command("sacctmgr", SACCTMGR)
    assert read_limits(SlurmClient().call) == Limits()


def test_slurm_s_own_refusal_is_said_as_it_is_and_asked_for_once_for_equal_needs(
    command: Command, tmp_path: Path
) -> None:
    command("sbatch", "cat > script; echo $* >> asked; echo 'allocation failure: Invalid account' >&2; exit 1")
    launcher = SlurmLauncher()
    for seed in range(3):
        config = asked(16, qos="short")
        config.seed = seed
        with pytest.raises(UserError, match=r"1 node x 4 GPUs, 30 min: .* \(sbatch --test-only\): .*Invalid account"):
            launcher.check(make_plan(launcher.resolve(config)))
    assert (tmp_path / "asked").read_text() == "--test-only\n"
    script = (tmp_path / "script").read_text()
    assert "#SBATCH --qos=short" in script and "#SBATCH --gpus-per-node=4" in script and "--array" not in script


@pytest.mark.parametrize(
    "said", ["Requested nodes are busy", "QOSMaxSubmitJobPerUserLimit", "Unable to contact slurm controller"]
)
def test_what_may_be_otherwise_tomorrow_refuses_nothing(said: str, command: Command) -> None:
    command("sbatch", f"cat > script; echo 'sbatch: error: {said}' >&2; exit 1")
    assert settled(asked(16, qos="short")).layout.nodes == 1


def test_a_dry_run_asks_for_no_rehearsal(tmp_path: Path) -> None:
    config = asked(16)
    config.sweep.dry_run = True
    make_plan(SlurmLauncher().resolve(config))
    assert not (tmp_path / "asked").exists()


def test_a_controller_that_has_just_started_refuses_nothing(command: Command) -> None:
    # What Slurm 22.05 says until its nodes have told it that they are there; it takes such a job all the same.
    command(
        "sinfo",
        """case "$*" in *--format=%T*) echo unknown;; *) cat <<END
gpu*|up|2-00:00:00|4|64|512000|gpu:a100:4|(null)|unknown
END
esac""",
    )
    refusal = "allocation failure: Requested node configuration is not available"
    command("sbatch", f"cat > script; echo '{refusal}' >&2; exit 1")
    assert settled(asked(16)).layout.gpus_per_node == 4
    command(
        "sinfo",
        """case "$*" in *--format=%T*) echo idle;; *) cat <<END
gpu*|up|2-00:00:00|4|64|512000|gpu:a100:4|(null)|idle
END
esac""",
    )
    with pytest.raises(UserError, match=refusal):
        settled(asked(16))
