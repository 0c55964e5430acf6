"""Jobs behind canaries, with Slurm's commands as programs; tests/slurm/test_canary.py has the real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.errors import UserError
from megdet.launchers.canaries import make_way, tell
from megdet.launchers.jobs import Jobs
from megdet.launchers.slurm.client import SlurmClient
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.let_go import let_go, note_waiting
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary, canaries_of
from megdet.runs.canary_report import CanaryReport
from megdet.runs.failure import Failure
from megdet.runs.folder import folder_of
from megdet.runs.state import RunState
from megdet.runs.status import Stand, Status
from tests.launchers.conftest import Command, PlanFor
from tests.launchers.slurm.test_launcher import OK, slurm, submission_of  # noqa: F401
from tests.runs.folders import stand_of

REPORT = CanaryReport(steps=20, step_s=0.01, loader_share=0.0, eval_gpu_s=1.0, peak_memory_gb=9.0)


@pytest.fixture
def handed(slurm: Command, tmp_path: Path) -> Command:  # noqa: F811
    """Jobs are numbered from 1, and their scripts kept."""
    slurm("scontrol", "echo $@ >> updates; echo 'MaxArraySize            = 100'")
    slurm("sbatch", f'echo x >> count; n=$(wc -l < count); cp $1 script$n; {OK} "$n"')
    return slurm


def hand_over(plans: list[Plan]) -> list[Canary]:
    canaries = canaries_of(plans)
    SlurmLauncher(wait=False).run(plans, [], mirror=lambda plan: None, canaries=canaries)
    return canaries


def script(tmp_path: Path, number: int) -> list[str]:
    return [line for line in (tmp_path / f"script{number}").read_text().splitlines() if line.startswith("#SBATCH")]


def ended(canary: Canary, status: Status, reason: str = "") -> None:
    owned = folder_of(canary.plan).claim("canary")
    if status == Status.FAILED:
        owned.write_failure(Failure.of_death(0, reason, log=("last words",)))
    owned.write_state(RunState(status, 1, "2026-11-27T10:00:00+00:00", reason=reason))


def test_runs_are_submitted_behind_their_own_canary(handed: Command, plan_for: PlanFor, tmp_path: Path) -> None:
    plans = [plan_for(16, 16), plan_for(64, 32), plan_for(16, 16, seed=1)]
    first, second = hand_over(plans)
    assert [submission_of(canary.plan).job for canary in (first, second)] == ["1", "2"]
    assert "#SBATCH --time=30" in script(tmp_path, 1) and not any("dependency" in line for line in script(tmp_path, 1))
    assert [submission_of(plan).job for plan in plans] == ["3_0", "4", "3_1"]
    for number, awaited in ((3, 1), (4, 2)):
        lines = script(tmp_path, number)
        assert f"#SBATCH --dependency=afterok:{awaited}" in lines and "#SBATCH --kill-on-invalid-dep=yes" in lines
        assert "#SBATCH --time=1440" in lines, "to be lowered by what the canary measures"
    assert submission_of(plans[2]).canaries == (str(folder_of(first.plan).path),)


def test_with_a_budget_all_runs_wait_for_all_canaries(handed: Command, plan_for: PlanFor, tmp_path: Path) -> None:
    plans = [plan_for(16, 16), plan_for(64, 32, partition="long")]
    for plan in plans:
        plan.config.sweep.max_gpu_hours = 1e6
    hand_over(plans)
    for number in (3, 4):
        assert "#SBATCH --dependency=afterok:1:2" in script(tmp_path, number)


def test_a_dependency_of_the_users_own_stays(handed: Command, plan_for: PlanFor, tmp_path: Path) -> None:
    hand_over([plan_for(16, 16, sbatch_options={"dependency": "singleton"})])
    assert "#SBATCH --dependency=singleton,afterok:1" in script(tmp_path, 2)


def test_a_dry_run_shows_both_scripts(plan_for: PlanFor) -> None:
    plans = [plan_for(16, 16)]
    text = SlurmLauncher().preview(plans, canaries=canaries_of(plans))
    assert text.count("#!/bin/bash") == 2 and text.count("--dependency=afterok:CANARY") == 1
    assert text.index("--time=30") < text.index("--dependency=afterok:CANARY")


def test_a_run_says_that_it_waits_for_its_canary_and_why_it_will_not_start(handed: Command, plan_for: PlanFor) -> None:
    plan = plan_for(16, 16)
    [canary] = hand_over([plan])
    name = submission_of(plan).name
    handed("squeue", f"echo '2|PENDING|0|{name}|Dependency|'")
    assert stand_of(folder_of(plan)) == Stand(Status.QUEUED, "job 2 waits for its canary")
    ended(canary, Status.FAILED, "CUDA out of memory. Tried to allocate 2 GiB")
    # Slurm cancels what can never start, and forgets it.
    for answer in (f"echo '2|CANCELLED|0|{name}|DependencyNeverSatisfied|'", "exit 0"):
        handed("squeue", answer)
        said = f"canary {plan.run_id} failed: CUDA out of memory. Tried to allocate 2 GiB"
        assert stand_of(folder_of(plan)) == Stand(Status.CANCELLED, said)
        found = Jobs().look_at([folder_of(plan)]).diagnosis(folder_of(plan))
        assert found is not None and (found.cause.name, found.reason, found.log) == (
            "CUDA out of memory", said, ("last words",),
        )  # fmt: skip


def test_a_canary_that_is_under_way_when_watching_stops_has_not_failed(
    handed: Command, plan_for: PlanFor, capsys: pytest.CaptureFixture[str]
) -> None:
    [canary] = canaries = hand_over([plan_for(16, 16)])
    name = submission_of(canary.plan).name
    handed("squeue", f"echo '1|RUNNING|0|{name}||'")
    capsys.readouterr()
    tell(canaries)
    assert capsys.readouterr() == ("", "")
    ended(canary, Status.FAILED, "a bug")
    handed("squeue", "exit 0")
    tell(canaries)
    assert "failed, 1 run is not started" in capsys.readouterr().err


def test_runs_that_are_fed_later_start_at_once_or_not_at_all_by_how_the_canary_ended(
    handed: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    plan = plan_for(16, 16)
    [canary] = canaries_of([plan])
    for status in (Status.FINISHED, Status.FAILED):
        ended(canary, status, "no")
        said: list[str] = []
        assert SlurmLauncher().submit([plan], said.append, canaries=[canary]) == ([], "")
        assert [line for line in said if "after" in line] == []
        assert len(said) == (status == Status.FINISHED)


def test_the_canarys_job_lowers_the_time_limit_of_what_waits(
    handed: Command, plan_for: PlanFor, tmp_path: Path
) -> None:
    plan = plan_for(16, 16)
    [canary] = hand_over([plan])
    owned = folder_of(canary.plan).claim("canary")
    REPORT.write(owned)
    assert let_go(owned, SlurmClient()) == ""
    # 0.01 s a step are 0.25 hours; twice that, in steps of powers of two, is an hour.
    assert "update JobId=2 TimeLimit=60" in (tmp_path / "updates").read_text()
    report = CanaryReport.read(owned)
    assert report is not None and report.gpu_hours == pytest.approx(plan.schedule.steps * 0.01 / 3600 * 8, rel=0.01)


def test_the_last_of_several_canaries_sees_that_together_they_are_over_the_budget(
    handed: Command, plan_for: PlanFor
) -> None:
    plans = [plan_for(16, 16), plan_for(64, 32)]
    for plan in plans:
        plan.config.sweep.max_gpu_hours = 3.0
    first, second = canaries_of(plans)
    words = []
    for canary in (first, second):
        note_waiting(canary, [first, second])
        owned = folder_of(canary.plan).claim("canary")
        owned.write_plan(canary.plan.to_json())
        # Of its own, each takes some 2 GPU-hours.
        step_s = 2.0 * 3600 / canary.plan.layout.gpus / canary.plan.schedule.steps
        replace(REPORT, step_s=step_s).write(owned)
        words.append(let_go(owned, SlurmClient()))
    assert words[0] == "" and "sweep.max_gpu_hours=3: by what canaries have measured, the runs take 4" in words[1]


def test_a_canary_that_is_under_way_is_not_taken_away(handed: Command, plan_for: PlanFor) -> None:
    plan = plan_for(16, 16)
    [canary] = hand_over([plan])
    handed("squeue", f"echo '1|PENDING|0|{submission_of(canary.plan).name}|Priority|'")
    with pytest.raises(UserError, match="a canary of these runs is under way"):
        make_way([canary])
    handed("squeue", "exit 0")
    make_way([canary])
    assert not folder_of(canary.plan).path.exists()


def test_what_waits_is_on_record_for_the_canarys_job(handed: Command, plan_for: PlanFor) -> None:
    plans = [plan_for(16, 16), plan_for(16, 16, seed=1)]
    [canary] = hand_over(plans)
    waiting = folder_of(canary.plan).waiting()
    assert waiting is not None
    assert [Plan.from_json(json.dumps(values)) for values in waiting["plans"]] == plans
