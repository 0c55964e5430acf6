"""Sweeps larger than Slurm takes: they are split, and handed over as others end; Slurm's answer is said as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from megdet.errors import ExitCode, UserError
from megdet.launchers.slurm.launcher import SlurmLauncher
from megdet.launchers.slurm.submission import Submission
from megdet.planning.plan import Plan
from megdet.runs.canary import Canary
from megdet.runs.folder import folder_of
from tests.launchers.conftest import Command, PlanFor

REFUSAL = (
    "sbatch: error: AssocMaxSubmitJobLimit\\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)
TAKES = """
size=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1"); size=$((${size:-0} + 1))
used=$(cat used 2>/dev/null || echo 0)
if [ $((used + size)) -gt $(cat limit) ]; then printf "%b\\n" "REFUSAL" >&2; exit 1; fi
echo $((used + size)) > used; echo x >> jobs
echo Submitted batch job $(wc -l < jobs)
""".replace("REFUSAL", REFUSAL)
"""An sbatch that takes `limit` jobs in all."""


@pytest.fixture
def limit(command: Command, tmp_path: Path) -> Callable[[int], None]:
    command("squeue", "exit 0")
    command("sacct", "exit 1")
    command("scontrol", "echo 'MaxArraySize            = 1001'")
    command("srun", "exit 0")
    command("sbatch", TAKES)
    return lambda most: (tmp_path / "limit").write_text(str(most)) and None


def test_what_slurm_does_not_take_is_left_and_its_words_are_said(
    limit: Callable[[int], None], plan_for: PlanFor
) -> None:
    limit(5)
    plans = [plan_for(16, 16, seed=seed) for seed in range(8)]
    with pytest.raises(
        UserError, match=r"job submit limit(.|\n)*3 runs wait to be submitted: give the same line again"
    ):
        SlurmLauncher(wait=False, pauses_s=()).run(plans, [], mirror=lambda plan: None)
    assert sum(Submission.read(folder_of(plan)) is not None for plan in plans) == 5
    limit(100)
    left, words = SlurmLauncher(wait=False, pauses_s=()).submit(plans[5:], lambda line: None)
    assert (left, words) == ([], "") and all(Submission.read(folder_of(plan)) for plan in plans)


def test_a_waiting_launcher_hands_over_the_rest_as_others_end(
    limit: Callable[[int], None], plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = [plan_for(16, 16, seed=seed) for seed in range(7)]
    handed_over: list[int] = []
    real = SlurmLauncher.submit

    def as_others_end(
        self: SlurmLauncher, left: Sequence[Plan], say: Callable[[str], None], *, canaries: Sequence[Canary]
    ) -> tuple[list[Plan], str]:
        handed_over.append(len(left))
        limit(3 * len(handed_over))
        return real(self, left, say, canaries=canaries)

    monkeypatch.setattr(SlurmLauncher, "submit", as_others_end)
    monkeypatch.setattr("megdet.launchers.slurm.launcher.watch", lambda folders, **_: ExitCode.OK)
    assert SlurmLauncher(pauses_s=(), feed_s=0.01).run(plans, [], mirror=lambda plan: None) == ExitCode.OK
    assert handed_over == [7, 4, 1] and all(Submission.read(folder_of(plan)) for plan in plans)
    out = capsys.readouterr().out
    assert out.count("Slurm takes no more jobs now (") == 1 and "job submit limit" in out and "4 runs wait" in out
