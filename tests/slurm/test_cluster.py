"""The test cluster is a Slurm to test against: what launchers rely on happens on it as on a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import NoSlurm, SlurmCluster, check_installed
from tests.slurm.configuration import MAX_ARRAY_SIZE, PREEMPTIBLE
from tests.slurm.daemons import Daemons, wait_until
from tests.slurm.jobs import field_of, submit, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_each_task_finds_its_place_and_its_nodes_gpus(slurm: SlurmCluster, tmp_path: Path) -> None:
    body = "srun bash -c 'echo $SLURM_PROCID $SLURM_LOCALID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'"
    job = submit(slurm, tmp_path, body, "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")
    assert wait_for(slurm, job) == "COMPLETED"
    lines = sorted((tmp_path / f"slurm-{job}.out").read_text().splitlines())
    assert lines == ["0 0 node1 0,1", "1 1 node1 0,1", "2 0 node2 0,1", "3 1 node2 0,1"]


def test_jobs_on_one_node_get_different_gpus(slurm: SlurmCluster, tmp_path: Path) -> None:
    body = "echo $CUDA_VISIBLE_DEVICES; sleep 3"
    options = ("--gpus-per-node=4", "--nodelist=node3", "--array=0-1", "--output=%a.txt")
    job = submit(slurm, tmp_path, body, *options)
    assert {wait_for(slurm, f"{job}_{element}") for element in (0, 1)} == {"COMPLETED"}
    assert sorted((tmp_path / f"{element}.txt").read_text() for element in (0, 1)) == ["0,1,2,3\n", "4,5,6,7\n"]


def test_an_array_is_as_long_as_max_array_size_and_no_longer(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "exit $SLURM_ARRAY_TASK_ID", f"--array=0-{MAX_ARRAY_SIZE - 1}")
    ends = [wait_for(slurm, f"{job}_{element}") for element in range(MAX_ARRAY_SIZE)]
    assert ends == ["COMPLETED"] + ["FAILED"] * (MAX_ARRAY_SIZE - 1)
    assert field_of(slurm, f"{job}_3", "ExitCode") == "3:0"
    refused = slurm.try_call("sbatch", f"--array=0-{MAX_ARRAY_SIZE}", "--wrap=true")
    assert refused.returncode != 0 and "array" in refused.stderr


def test_a_requeued_job_starts_again_within_seconds(slurm: SlurmCluster, tmp_path: Path) -> None:
    body = (
        'test -e once || { touch once; scontrol requeue "$SLURM_JOB_ID"; sleep 60; }; echo restart $SLURM_RESTART_COUNT'
    )
    job = submit(slurm, tmp_path, body, "--requeue", "--open-mode=append")
    assert wait_for(slurm, job, ["COMPLETED"]) == "COMPLETED"
    assert "restart 1" in (tmp_path / f"slurm-{job}.out").read_text()


def test_a_preempted_job_is_sent_its_signal_and_comes_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "if os.environ.get('SLURM_RESTART_COUNT', '0') != '0': sys.exit(print('again'))\n"
        "signal.signal(signal.SIGUSR2, lambda *_: sys.exit(print('asked')))\n"
        "open('ready', 'w').close()\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "task.py").write_text(script)
    place = ("--nodelist=node16", "--exclusive")
    options = (*place, f"--partition={PREEMPTIBLE}", "--signal=USR2@1", "--requeue", "--open-mode=append")
    job = submit(slurm, tmp_path, f"srun {sys.executable} -u task.py; sleep 60", *options)
    assert wait_until((tmp_path / "ready").exists, timeout_s=150)
    urgent = submit(slurm, tmp_path, "sleep 1", *place)
    assert wait_for(slurm, urgent) == "COMPLETED"
    assert wait_for(slurm, job, ["RUNNING", "COMPLETED"], timeout_s=150)
    assert wait_until(lambda: "again" in (tmp_path / f"slurm-{job}.out").read_text(), timeout_s=150)
    slurm.call("scancel", job)
    assert (tmp_path / f"slurm-{job}.out").read_text().startswith("asked")


def test_a_job_whose_node_dies_is_requeued_on_another(slurm: SlurmCluster, tmp_path: Path) -> None:
    body = "echo $SLURMD_NODENAME >> nodes; test $(wc -l < nodes) = 2 || sleep 120"
    job = submit(slurm, tmp_path, body, "--requeue", "--nodelist=node[14-15]", "--nodes=2")
    cancelled = submit(slurm, tmp_path, "sleep 120", "--nodelist=node14", "--no-requeue")
    assert wait_until((tmp_path / "nodes").exists, timeout_s=150)
    wait_for(slurm, cancelled, ["RUNNING"])
    slurm.kill_node("node14")
    try:
        assert wait_for(slurm, cancelled, timeout_s=150) == "NODE_FAIL"
        assert wait_for(slurm, job, ["PENDING"], timeout_s=150) == "PENDING"
        assert slurm.states_of_nodes()["node14"].startswith("down")
    finally:
        slurm.start_node("node14")
    assert wait_for(slurm, job, timeout_s=150) == "COMPLETED"
    assert field_of(slurm, job, "Restarts") == "1"


def test_a_job_over_its_time_limit_is_sent_its_signal_first(slurm: SlurmCluster, tmp_path: Path) -> None:
    body = "trap 'echo asked; exit 7' USR2; sleep 100 & wait"
    job = submit(slurm, tmp_path, body, "--time=1", "--signal=B:USR2@59")
    assert wait_for(slurm, job) == "FAILED"
    # Slurm may add a line of its own: that the job ended before its other signals.
    assert "asked" in (tmp_path / f"slurm-{job}.out").read_text().splitlines()


def test_a_cancelled_element_leaves_the_others_of_its_array(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path, "sleep 4", "--array=0-2")
    wait_for(slurm, f"{job}_1", ["RUNNING"])
    slurm.call("scancel", f"{job}_1")
    assert [wait_for(slurm, f"{job}_{element}") for element in range(3)] == ["COMPLETED", "CANCELLED", "COMPLETED"]


def test_sacct_tells_how_jobs_ended_where_there_is_accounting(slurm_accounting: SlurmCluster, tmp_path: Path) -> None:
    good = submit(slurm_accounting, tmp_path, "true")
    bad = submit(slurm_accounting, tmp_path, "exit 5")
    assert [wait_for(slurm_accounting, job) for job in (good, bad)] == ["COMPLETED", "FAILED"]
    query = (
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        f"--jobs={good},{bad}",
        "--format=JobID,State,ExitCode",
    )
    expected = {f"{good}|COMPLETED|0:0", f"{bad}|FAILED|5:0"}
    assert wait_until(lambda: set(slurm_accounting.call(*query).splitlines()) == expected, timeout_s=150)


def test_sacct_fails_where_there_is_none(slurm: SlurmCluster) -> None:
    asked = slurm.try_call("sacct")
    assert asked.returncode != 0 and "disabled" in asked.stderr


def test_job_ids_start_somewhere_else_on_each_cluster(slurm: SlurmCluster, slurm_accounting: SlurmCluster) -> None:
    first = [
        int(cluster.call("sbatch", "--parsable", "--output=/dev/null", "--wrap=true"))
        for cluster in (slurm, slurm_accounting)
    ]
    assert abs(first[0] - first[1]) > 1000


def test_up_and_down_as_commands_leave_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("s", numbered=True) / "cluster"
    command = (sys.executable, "-m", "tests.slurm.cluster")
    root = Path(__file__).parents[2]

    def run(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        check_installed(accounting=False)
    except NoSlurm as error:
        pytest.skip(str(error))
    place = ("--folder", str(folder))
    assert f"export SLURM_CONF={folder}/slurm.conf" in run("up", "--nodes", "2", *place)
    daemons = Daemons(folder)
    pids = {name: daemons.pid(name) for name in daemons.names()}
    assert len(pids) == 4 and all(map(daemons.alive, pids))
    # A second `up` finds it.
    assert "2 nodes" in run("up", "--nodes", "2", *place)
    assert {name: daemons.pid(name) for name in daemons.names()} == pids
    job = SlurmCluster(folder).call("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 100")
    assert wait_for(SlurmCluster(folder), job, ["RUNNING"])
    run("down", *place)
    assert not folder.exists()
    assert not [name for name, pid in pids.items() if Path(f"/proc/{pid}/exe").exists()]
    run("down", *place)


def test_without_slurm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr("tests.slurm.cluster.SYSTEM_FOLDERS", ())
    with pytest.raises(NoSlurm, match=r"no munged, slurmctld.*apt-get install"):
        check_installed(accounting=True)
