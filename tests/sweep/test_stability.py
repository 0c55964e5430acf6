"""`megdet stability`: edges of experiments whose edges are known, with a stand-in for training; and of one real run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megdet import cli
from megdet.config.experiments import compose_sweep
from megdet.errors import ExitCode, UserError
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import Journal
from megdet.runs.run_files import PROBES
from megdet.runs.state import RunState
from megdet.runs.status import Status
from megdet.sweep.stability import RATE, Interrupted, Row, find_edges
from tests.docs.test_programs import documented
from tests.runs.folders import owned

SMALL = ("experiment=tiny", "gpus=1", "data.train_images=64", "data.val_images=4", "tracking.enabled=false")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


class Training:
    """Leaves a status that `ends` gives to each plan, and a checkpoint."""

    def __init__(self, ends: Callable[[Plan], Status]) -> None:
        self.ends, self.plans = ends, list[Plan]()

    def __call__(self, plan: Plan) -> Status:
        self.plans.append(plan)
        status = self.ends(plan)
        folder_of(plan).path.mkdir(parents=True, exist_ok=True)
        folder = owned(folder_of(plan).path)
        folder.write_plan(plan.to_json())
        folder.checkpoint.write_bytes(b"weights")
        with Journal(folder) as journal:
            journal.event("started", step=0, attempt=1)
            journal.event(status, step=plan.schedule.steps)
        folder.write_state(RunState(status, attempts=1, started="2026-11-20T10:00:00+00:00", step=plan.schedule.steps))
        return status


def diverged_if(diverged: bool) -> Status:
    return Status.DIVERGED if diverged else Status.FINISHED


def edges(training: Training, *overrides: str, seeds: tuple[int, ...] = (0,), within: float = 1.25) -> list[Row]:
    asked, _ = compose_sweep([*SMALL, *overrides])
    launcher = LocalLauncher(run=training)
    return find_edges(asked, launcher=launcher, steps=20, within=within, seeds=seeds)


def test_the_command_shows_the_edges_as_a_table_as_json_and_as_a_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(lambda plan: diverged_if(plan.schedule.lr > 0.02 * plan.config.batch**0.5))
    monkeypatch.setattr("megdet.launchers.named.launcher_named", lambda name, config: LocalLauncher(run=training))
    words = ["stability", *SMALL, "batch=4,16", "bn_size=4", "schedule.warmup_epochs=0", "--steps", "20"]
    assert cli.main([*words, "--json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["asked"] for row in rows] == [["batch=4"], ["batch=16"]]
    trained = len(training.plans)
    assert cli.main([*words, "--figure", "edges.svg"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert len(training.plans) == trained, "what is there is not trained again"
    for row in rows:
        (line,) = (line for line in shown.splitlines() if line.split()[:1] == row["asked"])
        edge = row["lr_scale"]
        rates = [f"{edge[name] * row['lr_at_scale_1']:.3g}" for name in ("stable", "diverged")]
        assert {*rates, f"{edge['stable']:.3g}", str(row["runs"])} <= set(line.split())
    assert "<svg" in Path("edges.svg").read_text()
    for figure in ("edges.nothing", "/proc/edges.png"):
        # Not asked for before, and nothing of it is trained.
        others = ["batch=64" if word == "batch=4,16" else word for word in words]
        assert cli.main([*others, "--figure", figure]) == ExitCode.USER_ERROR
        assert f"--figure {figure}: " in capsys.readouterr().err and len(training.plans) == trained


def test_the_edge_of_each_row_is_found_in_its_own_runs() -> None:
    training = Training(lambda plan: diverged_if(plan.schedule.lr > 0.02 * plan.config.batch**0.5))
    small, large = edges(training, "batch=4,16", "bn_size=4", "schedule.warmup_epochs=0")
    for row, batch in ((small, 4), (large, 16)):
        assert row.plan.config.batch == batch and row.warmup is None
        assert row.rate is not None and row.rate.stable is not None and row.rate.diverged is not None
        edge = 0.02 * batch**0.5
        assert row.rate.stable * row.lr <= edge < row.rate.diverged * row.lr
        assert row.rate.diverged <= 1.25 * row.rate.stable
        assert row.runs == len(row.probes)
    assert len(training.plans) == small.runs + large.runs
    # Whole epochs of at least 20 steps, without a drop, apart from other runs, and without a trace but the records.
    for plan in training.plans:
        assert plan.schedule.steps >= 20 and plan.schedule.milestones == ()
        assert folder_of(plan).path.parent.name == PROBES and not folder_of(plan).checkpoint.exists()
    assert list(Path("runs").glob("b*")) == []


def test_the_same_command_trains_nothing_twice_and_goes_on_where_it_was_interrupted() -> None:
    whole = Training(lambda plan: diverged_if(plan.schedule.lr > 0.1))
    [expected] = edges(whole, "batch=16", "bn_size=4", "runs_dir=whole")
    stopped = Training(lambda plan: Status.INTERRUPTED if len(stopped.plans) == 3 else whole.ends(plan))
    with pytest.raises(Interrupted) as told:
        edges(stopped, "batch=16", "bn_size=4")
    assert told.value.code == ExitCode.INTERRUPTED
    rest = Training(whole.ends)
    [found] = edges(rest, "batch=16", "bn_size=4")
    assert (found.rate, found.probes) == (expected.rate, expected.probes)
    assert len(stopped.plans) + len(rest.plans) == len(whole.plans) + 1  # the interrupted one again
    again = Training(whole.ends)
    assert edges(again, "batch=16", "bn_size=4")[0].probes == expected.probes and again.plans == []


def test_a_rate_counts_as_stable_where_it_is_with_every_seed() -> None:
    training = Training(lambda plan: diverged_if(plan.schedule.lr > (0.3, 0.1)[plan.config.seed]))
    [row] = edges(training, "batch=16", "bn_size=4", "schedule.warmup_epochs=0", seeds=(0, 1))
    assert row.rate is not None and row.rate.stable is not None and row.rate.stable * row.lr <= 0.1
    assert row.runs == 2 * len(row.probes) == len(training.plans)


def test_the_shortest_warm_up_is_sought_at_the_rows_own_rate() -> None:
    training = Training(lambda plan: diverged_if(plan.schedule.lr > 0.2 or plan.schedule.warmup_steps < 5))
    [row] = edges(training, "batch=16", "bn_size=4", "lr.scale=2", "schedule.warmup_epochs=4", within=1.01)
    assert row.plan.schedule.warmup_steps == 16 and row.plan.schedule.lr == pytest.approx(0.12)
    assert row.warmup is not None and (row.warmup.stable, row.warmup.diverged) == (5, 4)
    own = [plan for plan in training.plans if plan.schedule.lr == pytest.approx(0.12)]
    assert len({plan.run_id for plan in own}) == len(own)  # the row as it is was a probe of both, and one run
    assert all(plan.schedule.steps > plan.schedule.warmup_steps for plan in training.plans)


def test_a_failed_probe_gives_its_row_up_and_the_others_go_on() -> None:
    def ends(plan: Plan) -> Status:
        return Status.FAILED if plan.config.batch == 4 else diverged_if(plan.schedule.lr > 0.1)

    failed, found = edges(Training(ends), "batch=4,16", "bn_size=4", "schedule.warmup_epochs=0")
    assert failed.why and failed.rate is None
    assert not found.why and found.rate is not None


def test_an_experiment_that_cannot_be_is_refused_before_anything_is_trained() -> None:
    training = Training(lambda plan: Status.FINISHED)
    with pytest.raises(UserError, match="bn_size"):
        edges(training, "batch=16,10", "bn_size=4")
    assert training.plans == []


@pytest.mark.slow
def test_a_real_training_diverges_above_the_edge_and_not_below(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "stability", *SMALL, "data.train_images=16", "batch=4", "bn_size=4", "lr.base=200", "schedule.warmup_epochs=0",
        "optimizer.clip_grad_norm=null", "--steps", "4", "--within", "2",
    ]  # fmt: skip
    assert cli.main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(found) - {"format"} == documented("megdet stability")
    [row] = found["rows"]
    stable, diverged = row["lr_scale"]["stable"], row["lr_scale"]["diverged"]
    assert diverged == 2 * stable
    statuses = {}
    for probe in row["probes"]:
        [run] = probe["runs"]
        state = RunFolder(Path("runs") / PROBES / run).state()
        assert probe["kind"] == RATE and state is not None
        statuses[probe["value"]] = state.status
    assert statuses[stable] == Status.FINISHED and statuses[diverged] == Status.DIVERGED
    assert (Path("runs") / PROBES / "stability.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(words) == 0
    table = capsys.readouterr().out
    assert f"{stable * row['lr_at_scale_1']:.3g}" in table and f"by {row['runs']} runs" in table
