"""Handing runs over to Slurm where it is missing, busy or unwilling; tests/slurm has the real one."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.submission import Submission
from megdet.planning.fork import Fork
from megdet.planning.plan import Plan
from megdet.runs.folder import folder_of
from tests.launchers.conftest import Command, PlanFor
from tests.test_launch import launch

OK = "echo Submitted batch job"


@pytest.fixture
def slurm(command: Command) -> Command:
    """A controller that answers; sbatch is left to the test."""
    command("squeue", "exit 0")
    command("sacct", "exit 1")
    command("scontrol", "echo 'MaxArraySize            = 2'")
    command("srun", "exit 0")
    return command


def submit(*plans: Plan) -> list[str]:
    said: list[str] = []
    assert SlurmLauncher(pauses_s=(0.01, 0.01)).submit(plans, said.append) == ([], "")
    return said


def submission_of(plan: Plan) -> Submission:
    submission = Submission.read(folder_of(plan))
    assert submission is not None
    return submission


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "runs" / ".submissions").iterdir() if path.name != ".lock")


def test_runs_go_in_arrays_that_slurm_takes(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", f'echo x >> count; {OK} "$(wc -l < count)"')
    plans = [plan_for(16, 16), plan_for(64, 32), *(plan_for(16, 16, seed=seed) for seed in (1, 2))]
    assert submit(*plans) == [
        "job 1: 2 runs on 1 node x 8 GPUs, 1440 min",
        "job 2: 1 run on 1 node x 8 GPUs, 1440 min",
        "job 3: 1 run on 2 nodes x 8 GPUs, 1440 min",
    ]
    assert [submission_of(plan).job for plan in plans] == ["1_0", "3", "1_1", "2"]
    assert all(Plan.from_json(folder_of(plan).plan.read_text()) == plan for plan in plans)


def test_a_run_that_goes_on_from_another_waits_for_the_end_of_its_job(
    slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    slurm("sbatch", f'echo x >> count; cat $1 > "script$(wc -l < count)"; {OK} "$(wc -l < count)"')
    first, other, forked = (plan_for(16, 16, seed=seed) for seed in range(3))
    forked = replace(forked, fork=Fork(first.run_id, 8))
    assert submit(first, forked, other) == [
        "job 1: 2 runs on 1 node x 8 GPUs, 1440 min",
        "job 2: 1 run on 1 node x 8 GPUs, 1440 min, after 1_0",
    ]
    assert "#SBATCH --dependency=afterany:1_0\n" in (tmp_path / "script2").read_text()
    assert "--dependency" not in (tmp_path / "script1").read_text()


def test_a_run_whose_source_is_over_waits_for_nothing_but_what_the_user_says(
    slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    slurm("sbatch", f"cat $1 > script; {OK} 7")
    over, queued = plan_for(16, 16), plan_for(16, 16, seed=1)
    submit(queued)
    own = plan_for(16, 16, seed=2, sbatch_options={"dependency": "singleton"})
    submit(replace(own, fork=Fork(over.run_id, 8)))
    assert "#SBATCH --dependency=singleton\n" in (tmp_path / "script").read_text()
    slurm("squeue", f"echo '7|PENDING|0|{submission_of(queued).name}|Priority|'")
    submit(replace(own, fork=Fork(queued.run_id, 8)))
    assert "#SBATCH --dependency=singleton,afterany:7\n" in (tmp_path / "script").read_text()


def test_until_its_job_starts_a_run_s_folder_is_its_submission_s(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", f"{OK} 5")
    plan = plan_for(16, 16)
    submit(plan)
    assert folder_of(plan).current_owner() == submission_of(plan).name


def test_a_run_that_another_launcher_has_submitted_meanwhile_is_not_submitted_twice(
    slurm: Command, plan_for: PlanFor
) -> None:
    slurm("sbatch", f"{OK} 5")
    plan = plan_for(16, 16)
    submit(plan)
    slurm("squeue", f"echo '5|PENDING|0|{submission_of(plan).name}|Priority|'")
    assert submit(plan) == []


def test_a_busy_controller_is_asked_again(slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", f"test -e tried && {OK} 5 || {{ touch tried; echo 'error: Socket timed out' >&2; exit 1; }}")
    plan = plan_for(16, 16)
    submit(plan)
    assert submission_of(plan).job == "5"


def test_a_job_whose_answer_was_lost_is_not_made_twice(slurm: Command, plan_for: PlanFor) -> None:
    name = "$(sed -n 's/.*--job-name=//p' $1)"
    slurm("sbatch", f"echo \"5|PENDING|0|{name}|None|\" > queue; echo 'Socket timed out' >&2; exit 1")
    slurm("squeue", "cat queue 2>/dev/null")
    plan = plan_for(16, 16)
    submit(plan)
    assert submission_of(plan).job == "5"


def test_a_refusal_is_told_in_slurms_words_and_leaves_nothing(
    slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    slurm("sbatch", "echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(UserError, match="invalid partition specified: gpuu"):
        submit(plan_for(16, 16))
    assert leftovers(tmp_path) == []


def test_a_controller_that_stays_away_leaves_the_token_for_later(
    slurm: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    slurm("sbatch", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match="not known whether"):
        submit(plan_for(16, 16))
    assert len([name for name in leftovers(tmp_path) if name.endswith(".intent")]) == 1
    slurm("sbatch", f"{OK} 6")
    plan = plan_for(16, 16)
    submit(plan)
    assert submission_of(plan).job == "6" and not [name for name in leftovers(tmp_path) if name.endswith(".intent")]


def test_gpus_of_this_machine_mean_nothing_on_a_cluster(slurm: Command) -> None:
    slurm("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UserError, match=r"Slurm does not say what there is .*launch from a login node"):
        SlurmLauncher().resolve(Config())


def test_without_slurm_a_sweep_says_so_and_starts_nothing(tmp_path: Path) -> None:
    done = launch(
        tmp_path, "-m", "experiment=tiny", "batch=16,32", "bn_size=16", "gpus=1", "cluster=paper", "data.workers=0",
        "cluster.max_images_per_gpu=null", "cluster.bn_across_nodes=true", "hydra/launcher=submitit_slurm",
        "tracking.enabled=false", "data.train_images=32", "data.val_images=2",
        PATH="/nowhere",
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "login node" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/b*"))


def test_a_dry_run_shows_the_scripts_without_slurm_and_writes_nothing(tmp_path: Path) -> None:
    done = launch(
        tmp_path, "-m", "batch=16,64,256", "bn_size=16,32", "hydra/launcher=submitit_slurm", "sweep.dry_run=true",
        "cluster=paper", PATH="/nowhere",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 new, 1 invalid" in done.stdout
    assert done.stdout.count("#!/bin/bash") == 5
    for nodes in (1, 2, 4, 8, 16):
        assert f"#SBATCH --nodes={nodes}\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_scripts_are_shell(tmp_path: Path, slurm: Command, plan_for: PlanFor) -> None:
    slurm("sbatch", f"cp $1 script; {OK} 5")
    submit(plan_for(16, 16))
    checked = subprocess.run(["/bin/bash", "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
