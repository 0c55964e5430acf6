"""The scripts that Slurm gets: their whole text, and which runs share one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from megdet.launchers.sbatch import Resources, arrays_of

from megdet.errors import UserError
from megdet.launchers.slurm import sbatch_script
from tests.launchers.conftest import PlanFor

GOLDEN = Path(__file__).with_name("golden.sbatch")
SITE = {
    "partition": "gpu", "account": "vision", "qos": "normal", "constraint": "v100", "time_min": 2880,
    "signal_delay_s": 180, "cpus_per_gpu": 5, "mem_gb_per_gpu": 40, "setup": ["module load cuda"],
    "container": "apptainer exec --nv /images/megdet.sif", "python": "/opt/python", "mail_user": "me@example.org",
    "sbatch_options": {"reservation": "detection"}, "srun_args": ["--mpi=none"], "array_parallelism": 4,
}  # fmt: skip


def test_the_script_of_an_array_is_this_text(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megdet.launchers.sbatch.megdet.__file__", "/shared/megdet/megdet/__init__.py")
    plans = [plan_for(64, 32, seed=seed, **SITE) for seed in (0, 1, 2)]
    [array] = arrays_of(plans, max_array_size=1001)
    folder = Path("/shared/runs/.submissions/megdet-1120-120000-ab12-1")
    assert sbatch_script(array, name=folder.name, folder=folder) == GOLDEN.read_text()


def test_a_single_run_is_a_plain_job_and_asks_for_nothing_that_the_site_does_not_want(plan_for: PlanFor) -> None:
    [array] = arrays_of([plan_for(16, 16, request_gpus=False)], max_array_size=1001)
    text = sbatch_script(array, name="n", folder=Path("/f"))
    for word in ("--array", "--gpus", "--partition", "--account", "--mem", "--cpus-per-task", "--mail", "--wckey"):
        assert word not in text, word
    assert "#SBATCH --output=/f/%j.log\n" in text


def test_runs_with_equal_resources_share_an_array(plan_for: PlanFor) -> None:
    plans = [
        plan_for(16, 16),
        plan_for(64, 16),
        plan_for(32, 32),
        plan_for(64, 16, seed=1),
        plan_for(16, 16, time_min=9),
    ]
    arrays = arrays_of(plans, max_array_size=1001)
    assert [[plans.index(plan) for plan in array.plans] for array in arrays] == [[0, 2], [1, 3], [4]]
    assert [array.resources.describe() for array in arrays] == [
        "1 node x 8 GPUs, 1440 min", "4 nodes x 8 GPUs, 1440 min", "1 node x 8 GPUs, 9 min",
    ]  # fmt: skip


def test_a_run_asks_for_the_time_that_it_may_take_and_never_for_more_than_the_longest(plan_for: PlanFor) -> None:
    plans = [plan_for(16, 16, seed=seed) for seed in range(6)]
    arrays = arrays_of(plans, max_array_size=1001, hours=[0.2, 3.1, 3.9, 11.0, 40.0, None])
    assert [(array.resources.time_min, len(array.plans)) for array in arrays] == [(60, 1), (480, 2), (1440, 3)]


def test_an_array_is_never_larger_than_slurm_takes(plan_for: PlanFor) -> None:
    arrays = arrays_of([plan_for(16, 16, seed=seed) for seed in range(7)], max_array_size=3)
    assert [len(array.plans) for array in arrays] == [3, 3, 1]


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"time_min": 2, "signal_delay_s": 120}, "cluster.time_min=2"),
        ({"time_min": 0}, "cluster.time_min=0"),
        ({"signal_delay_s": 1}, "cluster.signal_delay_s=1"),
        ({"array_parallelism": 0}, "cluster.array_parallelism=0"),
    ],
)
def test_settings_that_cannot_become_a_job_are_refused(site: dict[str, int], words: str, plan_for: PlanFor) -> None:
    with pytest.raises(UserError, match=words):
        Resources.of(plan_for(16, 16, **site))


@pytest.mark.parametrize("code", [0, 1, 3, 137])
def test_the_shell_hands_the_ranks_exit_code_on_and_outlives_a_signal(
    code: int, plan_for: PlanFor, tmp_path: Path
) -> None:
    """The last lines of the script, with srun and python as stand-ins."""
    programs = {
        "srun": f"kill -TERM $PPID; kill -USR2 $PPID; sleep 0.3; exit {code}",
        "python": 'echo "$@"',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    [array] = arrays_of([plan_for(16, 16, python=str(tmp_path / "python"))], max_array_size=1001)
    text = sbatch_script(array, name="n", folder=tmp_path)
    done = subprocess.run(
        ["bash", "-c", f"PATH={shlex.quote(str(tmp_path))}:$PATH\n{text}"], capture_output=True, text=True, timeout=20
    )
    assert done.stdout == f"-u -m megdet.launchers.slurm_task end {tmp_path}/runs.json {code}\n", done.stderr
