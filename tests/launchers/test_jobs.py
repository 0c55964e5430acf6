"""All launchers by name, and runs of several launchers looked at together."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.jobs import Jobs, stands_of
from megdet.launchers.local.launcher import LocalLauncher
from megdet.launchers.local.parallel import ParallelLauncher
from megdet.launchers.named import launcher_named
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.runs.folder import RunFolder
from megdet.runs.state import RunState
from megdet.runs.status import Status
from tests.launchers.conftest import Command, PlanFor, make_folder
from tests.launchers.slurm.submitted import NAME, submit
from tests.runs.folders import stand_of


@pytest.mark.parametrize(
    ("name", "launcher"),
    [("basic", LocalLauncher), ("local_parallel", ParallelLauncher), ("submitit_slurm", SlurmLauncher)],
)
def test_a_word_means_a_launcher(name: str, launcher: type) -> None:
    assert type(launcher_named(name, Config())) is launcher


@pytest.mark.parametrize("name", ["submitit_local", "joblib"])
def test_other_launchers_are_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(UserError, match=rf"hydra/launcher={name}.*local_parallel.*leave it out"):
        launcher_named(name, Config())


def test_each_launcher_is_asked_once_for_all_of_its_runs(plan_for: PlanFor, command: Command) -> None:
    runs = [make_folder(plan_for(16, 16, seed=seed)) for seed in range(4)]
    new, failed, *submitted = runs
    failed.owned_by("test").write_state(RunState(Status.FAILED, 1, started="2026-01-01T00:00:00+00:00"))
    for number, run in enumerate(submitted):
        submit(run, f"sweep-{number}", job=str(7 + number))
    command("squeue", "echo x >> looks; echo '7|PENDING|0|sweep-0|None|'; echo '8|RUNNING|0|sweep-1|None|'")
    assert [stand.status for stand in stands_of(runs).values()] == ["new", "failed", "queued", "running"]
    assert (new.path.parents[1] / "looks").read_text() == "x\n"


def test_a_run_that_is_handed_over_while_somebody_looks_is_new_and_not_damaged(plan_for: PlanFor) -> None:
    run = make_folder(plan_for(16, 16))
    look = Jobs().look_at([run])
    submit(run, "sweep", job="7")
    assert look.stand(run).status == Status.NEW and look.job(run) is None


def test_a_damaged_run_spoils_the_look_at_no_other(plan_for: PlanFor) -> None:
    good, bad = (make_folder(plan_for(16, 16, seed=seed)) for seed in (0, 1))
    for name, text in (("submission.json", "{"), ("state.json", "[]"), ("submission.json", '{"launcher": "slurm"}')):
        (bad.path / name).write_text(text)
        look = Jobs().look_at([good, bad])
        assert look.stand(good).status == Status.NEW
        stand = look.stand(bad)
        assert not stand.status.is_live and f"{name} is damaged" in stand.why and "launch" in stand.why
        (bad.path / name).unlink()


def test_a_run_of_a_launcher_that_is_not_installed_is_not_taken_for_another_s(planned_run: RunFolder) -> None:
    planned_run.submission_file.write_text(json.dumps({"launcher": "flux", "job": "f1"}))
    stand = stand_of(planned_run)
    assert stand.status == Status.FAILED and "launcher flux is not installed here" in stand.why


def test_a_run_that_is_run_here_is_no_longer_its_job_s(planned_run: RunFolder, command: Command) -> None:
    submit(planned_run)
    command("squeue", f"echo '7|FAILED|256|{NAME}|None|'")
    assert stand_of(planned_run).why.startswith("job 7")
    planned_run.claim("local-here-1").forget_submission()
    assert stand_of(planned_run).status == Status.NEW


def test_looking_at_runs_does_not_load_submitit(planned_run: RunFolder) -> None:
    submit(planned_run)
    program = (
        "import sys; from pathlib import Path; from megdet.launchers.jobs import job_of; "
        "from megdet.runs.folder import RunFolder; job = job_of(RunFolder(Path(sys.argv[1]))); "
        "sys.exit(job is None or 'submitit' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(planned_run.path)]).returncode == 0
