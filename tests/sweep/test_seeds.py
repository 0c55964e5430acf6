"""Waves of `sweep.seeds=auto`, with a stand-in for training."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.errors import ExitCode
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.plan import Plan
from megdet.runs.folder import folder_of
from megdet.runs.journal import Journal
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.seeds import run_with_seeds
from megdet.sweep.sweep import run_points
from tests.runs.folders import owned
from tests.test_launch import SMALL, launch


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


class Training:
    """Leaves an mmAP about the one that each learning rate has, 0.1 apart; `hours` a run."""

    def __init__(self, mmAP: Mapping[float, float], *, hours: float = 1.0, failing: Sequence[tuple[float, int]] = ()):
        self.mmAP, self.hours, self.failing = mmAP, hours, failing
        self.made: list[tuple[float, int]] = []

    def __call__(self, plan: Plan) -> Status:
        rate, seed = plan.config.lr.base, plan.config.seed
        self.made.append((rate, seed))
        folder_of(plan).path.mkdir(parents=True, exist_ok=True)
        folder = owned(folder_of(plan).path)
        folder.write_plan(plan.to_json())
        end = Status.FAILED if (rate, seed) in self.failing else Status.FINISHED
        mmAP = self.mmAP[rate] + random.Random(seed).uniform(-0.1, 0.1)
        with Journal(folder) as journal:
            journal.epoch(1, step=1, mmAP=mmAP, loss=1.0, lr=rate, train_s=3600 * self.hours, eval_s=0.0)
        steps = plan.schedule.steps
        folder.write_state(
            RunState(end, attempts=1, started="2026-01-01T00:00:00+00:00", train_s=3600 * self.hours, step=steps)
        )
        return end


def row(root: Path, rate: float, **sweep: object) -> Asked:
    config = Config(batch=8, bn_size=4, gpus=2)
    config.model.name, config.model.backbone.name, config.model.backbone.weights = "tiny", "tiny", "none"
    config.model.backbone.frozen_stages = 0
    config.data.name, config.data.root, config.data.num_classes = "shapes", str(root), 6
    config.data.train_images, config.data.val_images, config.data.min_size, config.data.max_size = 32, 8, 64, 107
    config.lr.base = rate
    config.schedule.epochs, config.schedule.milestones, config.schedule.factors = 1, [], []
    config.tracking.enabled = False
    config.sweep.seeds = "auto"
    for name, value in sweep.items():
        setattr(config.sweep, name, value)
    return Asked((f"lr.base={rate}",), config)


def sweep(training: Training, root: Path, rates: Sequence[float], **settings: object) -> ExitCode:
    asked = [row(root, rate, **settings) for rate in rates]
    return run_with_seeds(asked, launcher=LocalLauncher(run=training), arguments=["lr.base=..."])


def test_rows_get_seeds_until_they_are_apart(shapes_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = Training({0.02: 10.0, 0.04: 20.0, 0.08: 10.02})
    assert sweep(training, shapes_root, [0.02, 0.04, 0.08]) == ExitCode.OK
    seeds = {rate: [seed for made, seed in training.made if made == rate] for rate in training.mmAP}
    assert seeds[0.04] == [0, 1], "it is far above"
    assert seeds[0.08] == seeds[0.02] == [0, 1, 2, 3, 4], "these two are alike"
    said = capsys.readouterr().out
    assert "look 1 of 4: 1 of 2 answered" in said and "is to decide a (lr.base=0.08)" in said
    assert "more: mmAP of lr.base=0.04 against lr.base=0.02" in said
    assert "12 runs; 5 seeds of all 3 rows would be 15" in said


def test_the_same_line_starts_nothing_again_and_goes_on_where_it_stopped(
    shapes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mmAP = {0.02: 10.0, 0.04: 10.02}
    whole = Training(mmAP)
    sweep(whole, shapes_root, list(mmAP))
    again = Training(mmAP)
    assert sweep(again, shapes_root, list(mmAP)) == ExitCode.OK
    assert again.made == []
    last = min(Path("runs").glob("*-s4-*"))
    (last / "state.json").unlink()
    (last / "metrics.jsonl").unlink()
    assert sweep(again, shapes_root, list(mmAP)) == ExitCode.OK
    assert [seed for _, seed in again.made] == [4]


def test_the_budget_ends_the_adding(shapes_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two GPUs for an hour each: the first wave takes 8 GPU-hours, another 4.
    training = Training({0.02: 10.0, 0.04: 10.02})
    sweep(training, shapes_root, [0.02, 0.04])
    made = len(training.made)
    assert made == 10
    for folder in Path("runs").glob("*-s[2-4]-*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    budget = Training(training.mmAP)
    capsys.readouterr()
    sweep(budget, shapes_root, [0.02, 0.04], max_gpu_hours=13)
    assert [seed for _, seed in budget.made] == [2, 2]
    said = capsys.readouterr().out
    assert "no room in sweep.max_gpu_hours" in said and "open: mmAP of lr.base=0.04" in said


def test_a_failed_run_is_told_and_the_others_go_on(shapes_root: Path) -> None:
    training = Training({0.02: 10.0, 0.04: 20.0, 0.08: 30.0}, failing=[(0.08, 1)])
    assert sweep(training, shapes_root, [0.02, 0.04, 0.08]) == ExitCode.RUN_FAILED
    assert len(training.made) >= 6


def test_a_dry_run_shows_the_first_wave_and_starts_nothing(
    shapes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training({0.02: 10.0, 0.04: 10.02})
    assert sweep(training, shapes_root, [0.02, 0.04], dry_run=True) == ExitCode.OK
    said = capsys.readouterr().out
    assert training.made == [] and "4 new" in said and "the same line goes on" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["-m", "lr.base=0.01,0.02", "seed=0,1", "sweep.seeds=auto"], "sweep.seeds=auto chooses the seeds itself"),
        (["-m", "lr.base=0.01", "sweep.seeds=auto"], "this sweep has one"),
        (["sweep.seeds=auto"], "add -m and the rows to compare"),
        (["-m", "lr.base=0.01,0.02", "sweep.seeds=auto", "sweep.most_seeds=1"], "sweep.most_seeds=1"),
        (["-m", "lr.base=0.01,0.02", "sweep.seeds=3"], "sweep.seeds=3"),
    ],
    ids=["seeds_named", "one_row", "no_sweep", "too_few", "a_number"],
)
def test_what_cannot_be_is_said_before_anything_starts(words: list[str], named: str, tmp_path: Path) -> None:
    done = launch(tmp_path, *words, *SMALL)
    assert done.returncode == ExitCode.USER_ERROR and named in done.stderr
    assert not (tmp_path / "runs").exists()


def test_points_of_their_own_refuse_it(shapes_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_points([row(shapes_root, 0.02)]) == ExitCode.USER_ERROR
    assert "sweep.seeds=auto" in capsys.readouterr().err
