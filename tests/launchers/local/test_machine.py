"""What this machine has, and what fits on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.local.machine import IMAGE_CORE_S, Machine
from megdet.model.settings import ModelSettings
from megdet.planning.plan import make_plan

NO_GPU = Machine(gpus=(), cores=2)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [("", ()), ("-1", ()), ("0", ("0",)), ("0,1, 2", ("0", "1", "2")), ("GPU-1a,MIG-2b", ("GPU-1a", "MIG-2b"))],
)
def test_gpus_are_those_that_cuda_may_see(visible: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Machine.here().gpus == gpus


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        (
            "echo 'GPU 0: NVIDIA A (UUID: GPU-1)'; echo '  MIG 1g.5gb Device 0: (UUID: MIG-1)'; echo 'GPU 1: B'",
            ("0", "1"),
        ),
        ("echo 'no devices were found' >&2; exit 6", ()),
    ],
)
def test_otherwise_gpus_are_those_that_nvidia_smi_lists(
    script: str, gpus: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert Machine.here().gpus == gpus


def test_without_a_gpu_a_node_has_as_many_cpu_ranks_as_are_asked_for() -> None:
    for asked, ranks in ((Config(), 1), (Config(gpus=2), 2), (Config(gpus=1000), 64), (Config(gpus=-1), 1)):
        assert NO_GPU.resolve(asked).cluster.gpus_per_node == ranks
    assert NO_GPU.resolve(Config(cluster=ClusterSettings(gpus_per_node=8))).cluster.gpus_per_node == 8


def test_an_elastic_run_gets_the_gpus_that_there_are() -> None:
    machine = Machine(gpus=("0", "1"), cores=8)
    asked = Config(batch=16, bn_size=4, gpus=4, images_per_gpu=4)
    with pytest.raises(UserError, match="gpus=4"):
        make_plan(machine.resolve(asked))
    asked.cluster.elastic = True
    plan = make_plan(machine.resolve(asked))
    assert (plan.layout.gpus, plan.config.batch, plan.config.bn_size) == (2, 16, 4)
    enough = Config(batch=16, bn_size=4, gpus=2, images_per_gpu=4, cluster=ClusterSettings(elastic=True))
    assert make_plan(machine.resolve(enough)).layout.accumulation == 2, "what is there is given as it was asked for"


def test_cpu_processes_are_planned_as_what_they_are() -> None:
    assert NO_GPU.resolve(Config()).cluster.request_gpus is False
    pretended = Config(cluster=ClusterSettings(gpus_per_node=8))
    assert NO_GPU.resolve(pretended).cluster.request_gpus is False, "a run would start on this machine's cores"
    pretended.sweep.dry_run = True
    assert NO_GPU.resolve(pretended).cluster.request_gpus is True, "a plan for GPUs elsewhere"
    assert Machine(("0",), cores=2).resolve(Config()).cluster.request_gpus is True


def test_a_machine_without_gpu_says_what_it_can_do() -> None:
    def remarks(**asked: object) -> list[str]:
        return NO_GPU.remarks([make_plan(NO_GPU.resolve(Config(**asked)))])  # type: ignore[arg-type]

    first, large, ways = remarks()
    assert first == "no GPU here: CPU processes stand in for GPUs, on 2 cores"
    hours = 7392 * 11 * 16 * IMAGE_CORE_S / 2 / 3600
    assert f"r50_fpn on coco2017 is not meant for a CPU: about {hours:,.0f} hours a run" in large
    assert "made for a machine like this: experiment=tiny" in ways
    assert remarks(model=ModelSettings(name="tiny")) == [first]
    _, crowded, _, _ = remarks(batch=64, gpus=64)
    assert "64 processes share 2 cores; with gpus=2" in crowded
    assert Machine(("0",), cores=2).remarks([make_plan(Machine(("0",), cores=2).resolve(Config()))]) == []


def test_with_gpus_a_node_has_those() -> None:
    asked = Config(gpus=2)
    assert Machine(("0", "1", "2", "3"), cores=2).resolve(asked).cluster.gpus_per_node == 4
    assert asked.cluster.gpus_per_node == "auto", "the config that was asked stays as it is"


def test_a_plan_for_more_gpus_than_there_are_is_refused() -> None:
    paper = make_plan(Config(batch=256, cluster=ClusterSettings(nodes=16, gpus_per_node=8)))
    with pytest.raises(UserError, match=r"gpus=128 on 16 nodes.*none.*cluster=local"):
        NO_GPU.check(paper)
    two = make_plan(Config(gpus=2, cluster=ClusterSettings(gpus_per_node=2)))
    with pytest.raises(UserError, match=r"gpus=2 .* has 1;"):
        Machine(("0",), cores=2).check(two)
    NO_GPU.check(two)
