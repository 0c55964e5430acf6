"""Runs whose nodes are out of service: planned again on those that are there, on a stand-in for Slurm.

tests/slurm/test_elastic.py has the real one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import ExitCode, UserError
from megdet.launchers.slurm.client import SlurmClient
from megdet.launchers.slurm.elastic import Service, planned_again
from megdet.launchers.slurm.fitting import check_fits
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan, make_plan
from megdet.runs.folder import RunFolder, folder_of
from tests.launchers import fake_slurm
from tests.launchers.stand_in import write_program

FINISHES = """
state("running")
again("finished")
"""


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Slurm with four nodes of one GPU, all in service."""
    for key, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(key, value)
    return tmp_path / "slurm"


def in_service(slurm: Path, nodes: int) -> None:
    (slurm / fake_slurm.NODES_UP).write_text(str(nodes))


def a_plan(tmp_path: Path, **cluster: object) -> Plan:
    """The plan of a run on nodes of one GPU."""
    place = ClusterSettings(name="paper", nodes=4, gpus_per_node=1, cpus_per_gpu=1, time_min=10, **cluster)  # type: ignore[arg-type]
    runs_dir = str(tmp_path / "runs")
    return make_plan(Config(batch=4, bn_size=2, gpus=2, images_per_gpu=2, cluster=place, runs_dir=runs_dir))


def launcher(tmp_path: Path, *, wait: bool) -> SlurmLauncher:
    return SlurmLauncher(wait=wait, program=write_program(tmp_path / "rank.py", FINISHES))


def ignored(plan: Plan) -> None:
    """Stands in for MLflow."""


def plan_in(folder: RunFolder) -> Plan:
    return Plan.from_json(folder.plan.read_text())


def test_a_run_that_waits_for_a_drained_node_goes_on_on_the_others_as_the_same_run(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = a_plan(tmp_path, elastic=True, elastic_after_min=0.0)
    in_service(slurm, 1)
    assert launcher(tmp_path, wait=True).run([plan], [], mirror=ignored) == ExitCode.OK
    folder = folder_of(plan)
    moved, submission = plan_in(folder), Submission.read(folder)
    assert (moved.layout.gpus, moved.layout.accumulation) == (1, 2)
    assert (moved.run_id, moved.config.batch, moved.config.bn_size) == (plan.run_id, 4, 2)
    assert submission is not None and len(submission.history) == 1
    assert "1 node x 1 GPUs instead of 2 nodes x 1 GPUs" in capsys.readouterr().out


def test_the_same_line_again_moves_what_is_queued_at_once(tmp_path: Path, slurm: Path) -> None:
    in_service(slurm, 1)
    plan = a_plan(tmp_path)
    SlurmLauncher(wait=False).run([plan], [], mirror=ignored)
    before = Submission.read(folder_of(plan))
    launcher(tmp_path, wait=False).run([], [plan], mirror=ignored)
    assert Submission.read(folder_of(plan)) == before, "it is not elastic"
    launcher(tmp_path, wait=True).run([], [a_plan(tmp_path, elastic=True)], mirror=ignored)
    after = Submission.read(folder_of(plan))
    assert before is not None and after is not None and after.history == (before.job,)
    assert plan_in(folder_of(plan)).layout.gpus == 1


def test_a_run_whose_nodes_are_there_stays(tmp_path: Path, slurm: Path) -> None:
    plan = a_plan(tmp_path, elastic=True)
    in_service(slurm, 2)
    assert planned_again(plan, Service(SlurmClient())) is None
    in_service(slurm, 1)
    moved = planned_again(plan, Service(SlurmClient()))
    assert moved is not None and moved.layout.nodes == 1
    in_service(slurm, 0)
    assert planned_again(plan, Service(SlurmClient())) is None, "there is nothing to move to"


def test_a_launch_takes_the_nodes_that_are_in_service_where_more_are_asked_for(tmp_path: Path, slurm: Path) -> None:
    in_service(slurm, 2)
    asked = Config(batch=4, bn_size=2, gpus=4, images_per_gpu=1)
    asked.cluster.nodes, asked.cluster.gpus_per_node, asked.cluster.bn_across_nodes = 4, 1, True
    place = SlurmLauncher()
    refused = make_plan(place.resolve(asked))
    with pytest.raises(UserError, match="more than any job ever gets"):
        check_fits(refused, place._found, time_min=60, partition=None)
    asked.cluster.elastic = True
    plan = make_plan(place.resolve(asked))
    assert (plan.layout.gpus, plan.layout.nodes) == (2, 2)
    check_fits(plan, place._found, time_min=60, partition=None)
