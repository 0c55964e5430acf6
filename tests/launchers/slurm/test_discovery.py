"""What Slurm has is read from its own words, and a run goes to nodes that it fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megdet.cli import main as megdet
from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.slurm.client import SlurmClient, SlurmError
from megdet.launchers.slurm.discovery import Cluster, NodeShape, discover
from megdet.launchers.slurm.fitting import check_fits, fit
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.planning.plan import make_plan

Command = Callable[[str, str], None]

SINFO = """cat <<END
cpu*|up|2:00:00|4|48|191000|(null)|skylake|idle
gpu|up|2-00:00:00|6|64|512000|gpu:a100:4(S:0-1)|a100,ib|mixed
gpu|up|2-00:00:00|2|64|512000|gpu:a100:4(S:0-1)|a100,ib|drained*
gpu|up|2-00:00:00|3|32+|256000|gpu:v100:8|v100|idle
long|up|infinite|16|64|1031000|gpu:8|(null)|allocated
old|down|infinite|9|16|64000|gpu:2|(null)|idle
gone|up|infinite|5|16|64000|gpu:2|(null)|down*
END"""
SCONTROL = """case "$2" in
config) echo "MaxArraySize            = 501";;
partition) echo "PartitionName=gpu AllowGroups=ALL Default=NO MaxNodes=4 MaxTime=2-00:00:00"
           echo "PartitionName=long Default=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED";;
esac"""


@pytest.fixture
def slurm(command: Command) -> None:
    command("sinfo", SINFO)
    command("scontrol", SCONTROL)


def found() -> Cluster:
    return discover(SlurmClient().call)


def asked(batch: int = 64, bn_size: int = 32, **cluster: object) -> Config:
    return Config(batch=batch, bn_size=bn_size, cluster=ClusterSettings(**cluster))  # type: ignore[arg-type]


def test_partitions_nodes_gpus_and_limits_are_found(slurm: None) -> None:
    cluster = found()
    assert cluster.shapes == (
        NodeShape("cpu", True, 4, 0, "", 48, 191000 / 1024, ("skylake",), 120),
        # Drained nodes do not count, and a job may have 4 nodes at the most.
        NodeShape("gpu", False, 4, 4, "a100", 64, 500.0, ("a100", "ib"), 2880),
        NodeShape("gpu", False, 3, 8, "v100", 32, 250.0, ("v100",), 2880),
        NodeShape("long", False, 16, 8, "", 64, 1031000 / 1024, (), None),
    )
    assert (cluster.max_array_size, cluster.account, cluster.max_submit_jobs) == (501, None, None)
    assert "gpu: 4 nodes x 4 a100 GPUs, 64 cores, 500 GB, at most 2 d" in cluster.describe()


def test_accounts_tell_the_account_and_the_limit_of_jobs(slurm: None, command: Command) -> None:
    command("sacctmgr", "echo 'me|vision|40'; echo 'me|vision|'")
    assert (found().account, found().max_submit_jobs) == ("vision", 40)


def test_a_run_goes_to_the_first_nodes_that_it_fits(slurm: None) -> None:
    small = fit(asked(16, 16), found(), partition=None).cluster
    assert (small.partition, small.nodes, small.gpus_per_node, small.time_min) == ("gpu", 4, 4, 1440)
    # 32 images behind a statistic with one image a GPU: more GPUs in a node than gpu has, so long.
    large = Config(batch=64, bn_size=8, images_per_gpu=1)
    assert fit(large, found(), partition=None).cluster.gpus_per_node == 8
    assert fit(large, found(), partition="long").cluster.nodes == 16


def test_what_is_given_has_the_last_word(slurm: None) -> None:
    cluster = fit(asked(partition="long", nodes=2, gpus_per_node=4, cpus_per_gpu=3), found(), partition="gpu").cluster
    assert (cluster.partition, cluster.nodes, cluster.gpus_per_node, cluster.cpus_per_gpu) == ("long", 2, 4, 3)
    assert fit(asked(constraint="v100"), found(), partition=None).cluster.gpus_per_node == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "gpus"}, "cluster.partition=gpus: Slurm has no gpus that you may use; it has cpu, gpu, long"),
        ({"partition": "cpu"}, "no nodes with GPUs are there for this: cpu"),
        ({"constraint": "h100"}, "no nodes with GPUs are there for this"),
    ],
)
def test_nodes_that_are_not_there_are_named(slurm: None, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit(asked(**settings), found(), partition=None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"partition": "gpu", "nodes": 16, "gpus_per_node": 8}, "more than any job ever gets"),
        ({"partition": "gpu", "nodes": 4, "gpus_per_node": 4, "time_min": 4000}, "more than gpu ever gives .2880 min."),
    ],
)
def test_what_a_partition_never_gives_is_refused_while_planning(
    slurm: None, settings: dict[str, object], words: str
) -> None:
    plan = make_plan(asked(256, 32, **settings))
    with pytest.raises(UserError, match=words):
        check_fits(plan, found(), time_min=plan.config.cluster.time_min or 1, partition=None)
    check_fits(
        make_plan(asked(256, 32, partition="long", nodes=16, gpus_per_node=8)), found(), time_min=9000, partition=None
    )


def test_slurm_is_asked_once_for_all_points_also_where_it_does_not_answer(command: Command, tmp_path: Path) -> None:
    command("scontrol", "echo asked >> asked; exit 1")
    launcher = SlurmLauncher()
    for _ in range(3):
        with pytest.raises(UserError, match="launch from a login node"):
            launcher.resolve(asked())
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_without_slurm_a_dry_run_is_planned_for_the_papers_cluster_and_says_so(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    config, launcher = asked(256, 16), SlurmLauncher()
    config.sweep.dry_run = True
    for _ in range(2):
        plan = make_plan(launcher.resolve(config))
    assert (plan.layout.gpus, plan.layout.nodes) == (128, 16)
    assert capsys.readouterr().err.count("cluster=paper") == 1


def test_sinfo_that_fails_is_no_cluster(command: Command) -> None:
    command("scontrol", SCONTROL)
    command("sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact"):
        found()


def test_megdet_cluster_shows_what_there_is_and_writes_a_file_that_plans(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert megdet(["cluster", "--write", "--partition", "long"]) == 0
    assert "long: 16 nodes x 8 GPUs" in capsys.readouterr().out
    import yaml

    written = yaml.safe_load((tmp_path / "conf" / "cluster" / "mine.yaml").read_text())
    settings = ClusterSettings(**written)
    settings.check("cluster.")
    assert (settings.nodes, settings.gpus_per_node, settings.partition) == (16, 8, "long")
    check_fits(make_plan(Config(batch=256, bn_size=16, cluster=settings)), found(), time_min=60, partition=None)
    assert megdet(["cluster", "--write"]) == 2 and "exists" in capsys.readouterr().err
