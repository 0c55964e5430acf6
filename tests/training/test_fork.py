"""Runs that take their first epochs from another one: the same bits as from scratch, whatever became of that one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet.config.experiments import Asked
from megdet.errors import ExitCode
from megdet.launchers.local.launcher import LocalLauncher
from megdet.planning.fork import Fork
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder, folder_of
from megdet.runs.journal import read_journal
from megdet.runs.provenance import data_recorded
from megdet.sweep.points import plan_points
from megdet.sweep.sweep import run_points
from megdet.training.fork import take_over
from tests.training.test_run import STEPS_PER_EPOCH, config_of, start

pytestmark = pytest.mark.slow
"""They train: a dozen runs together."""

MEASURED = ("loss", "grad_norm", "lr", "mmAP", "rpn_positive", "roi_negative")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As `start` has: with another number of threads the last bits of a sum differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def asked(runs: Path, shapes_root: Path, *, epochs: int, drop: int | None, **sweep: object) -> Asked:
    config = config_of(runs, shapes_root)
    config.schedule.epochs = epochs
    config.schedule.milestones, config.schedule.factors = ([drop], [0.1]) if drop else ([], [])
    for key, value in sweep.items():
        setattr(config.sweep, key, value)
    return Asked((f"schedule.epochs={epochs}",), config)


def short(runs: Path, shapes_root: Path, **sweep: object) -> Asked:
    return asked(runs, shapes_root, epochs=3, drop=2, **sweep)


def long(runs: Path, shapes_root: Path, **sweep: object) -> Asked:
    """Shares two epochs with the short one."""
    return asked(runs, shapes_root, epochs=4, drop=3, **sweep)


def run(*experiments: Asked) -> list[RunFolder]:
    """The folders of the runs, in their order."""
    plans: list[Plan] = []

    class Seen(LocalLauncher):
        def run(self, planned: Sequence[Plan], under_way: Sequence[Plan], **more: Any) -> ExitCode:
            plans.extend(planned)
            return super().run(planned, under_way, **more)

    assert run_points(experiments, launcher=Seen()) == ExitCode.OK
    return [folder_of(plan) for plan in plans]


def numbers(folder: RunFolder) -> list[dict[str, Any]]:
    kinds = ("step", "epoch")
    return [{key: line.get(key) for key in ("kind", "step", *MEASURED)} for line in read_journal(folder, kinds=kinds)]


def assert_same(folder: RunFolder, expected: RunFolder) -> None:
    """Bit for bit the same weights and momenta, and the same numbers in the journal."""
    assert folder.name == expected.name
    ours, theirs = (torch.load(f.checkpoint, weights_only=True) for f in (folder, expected))
    assert all(torch.equal(value, theirs["model"][name]) for name, value in ours["model"].items())
    assert ("average" in ours) == ("average" in theirs)
    assert all(torch.equal(value, theirs["average"][name]) for name, value in ours.get("average", {}).items())
    momenta = [
        [entry["momentum_buffer"] for entry in content["optimizer"]["state"].values()] for content in (ours, theirs)
    ]
    assert len(momenta[0]) > 10 and all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert numbers(folder) == numbers(expected)


def events(folder: RunFolder) -> list[str]:
    return [line["event"] for line in read_journal(folder, kinds=("event",))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> list[RunFolder]:
    """The short and the long run, each trained from its first epoch."""
    return run_in(tmp_path_factory.mktemp("alone"), shapes_root, fork=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> list[RunFolder]:
    """The short run, and the long one that goes on from its checkpoint."""
    return run_in(tmp_path_factory.mktemp("shared"), shapes_root, fork=True)


def run_in(place: Path, shapes_root: Path, *, fork: bool) -> list[RunFolder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return run(*(each(place, shapes_root, fork=fork) for each in (short, long)))


@pytest.fixture
def source(shared: list[RunFolder], tmp_path: Path) -> RunFolder:
    """The short run with its checkpoint of the second epoch, to be spoilt, in a folder of runs of its own."""
    return RunFolder(shutil.copytree(shared[0].path, tmp_path / "runs" / shared[0].name))


def planned(source: RunFolder, tmp_path: Path, shapes_root: Path) -> Plan:
    """The long run's plan, to go on from the checkpoint of the last shared epoch."""
    [point] = plan_points([long(tmp_path, shapes_root)], to_run_here=True)
    assert point.plan is not None
    return replace(point.plan, fork=Fork(source.name, 2))


def test_runs_that_share_epochs_are_those_from_scratch_to_the_last_bit(
    alone: list[RunFolder], shared: list[RunFolder]
) -> None:
    for folder, expected in zip(shared, alone, strict=True):
        assert_same(folder, expected)
    first, second = shared
    assert events(first) == ["started", "finished"]
    assert events(second) == ["started", "forked", "resumed", "finished"]
    forked = read_journal(second, kinds=("event",))[1]
    assert (forked["run"], forked["epochs"], forked["step"]) == (first.name, 2, 2 * STEPS_PER_EPOCH)


def test_with_agvm_and_an_average_of_the_weights_too(tmp_path: Path, shapes_root: Path) -> None:
    folders = []
    for place, fork in (("alone", False), ("shared", True)):
        experiments = [each(tmp_path / place, shapes_root, fork=fork) for each in (short, long)]
        for experiment in experiments:
            optimizer = experiment.config.optimizer
            optimizer.name, optimizer.agvm.interval, optimizer.ema_decay = "agvm", 2, 0.9
            experiment.config.schedule.warmup_epochs = 0.0
        folders.append(run(*experiments))
    for expected, folder in zip(*folders, strict=True):
        assert_same(folder, expected)
        assert "average" in torch.load(folder.checkpoint, weights_only=True)
    assert "forked" in events(folder)


def test_the_time_of_a_forked_run_is_that_of_all_its_epochs_and_what_another_spent_is_told_apart(
    shared: list[RunFolder],
) -> None:
    first, second = shared
    state, source = second.state(), first.state()
    assert state is not None and source is not None and state.attempts == 1 and source.shared_s == 0
    fork = read_journal(first, kinds=("epoch",))[1]
    assert state.shared_s == pytest.approx(fork["train_s"] + fork["eval_s"], abs=0.01)
    assert state.train_s > fork["train_s"] and state.train_s + state.eval_s > state.shared_s


def test_a_forked_run_has_the_pictures_of_the_epochs_that_it_took_over(shared: list[RunFolder]) -> None:
    first, second = ({path.name for path in folder.pictures.glob("proposals-epoch01-*")} for folder in shared)
    assert first and first == second


def test_a_finished_run_is_made_longer_to_the_bits_of_one_from_scratch(tmp_path: Path, shapes_root: Path) -> None:
    def of(epochs: int, place: Path = tmp_path, **sweep: object) -> Asked:
        return asked(place, shapes_root, epochs=epochs, drop=None, **sweep)

    (ended,) = run(of(2))
    longer, shorter = run(of(4), of(3))
    assert_same(longer, *run(of(4, tmp_path / "scratch", fork=False)))
    assert Plan.from_json(longer.plan.read_text()).fork == Fork(ended.name, 2)
    assert events(longer) == ["started", "forked", "resumed", "finished"]
    # The longer one came first, and all epochs of the shorter one are its own: that one is only evaluated.
    assert Plan.from_json(shorter.plan.read_text()).fork == Fork(longer.name, 3)
    assert numbers(shorter) == [line for line in numbers(longer) if line["step"] <= 3 * STEPS_PER_EPOCH]
    assert any(path.name.startswith("detections-") for path in shorter.pictures.iterdir())


def test_a_forked_run_that_was_killed_resumes_to_the_same_bits(
    source: RunFolder, alone: list[RunFolder], tmp_path: Path, shapes_root: Path
) -> None:
    plan = planned(source, tmp_path, shapes_root)
    process = start(plan)
    deadline = time.monotonic() + 300
    while not any(line["step"] > 2 * STEPS_PER_EPOCH for line in read_journal(folder_of(plan))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=600)
    shutil.rmtree(source.path)  # it is needed no more
    process = start(plan)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert_same(folder_of(plan), alone[1])
    assert events(folder_of(plan)).count("forked") == 1
    state = folder_of(plan).state()
    assert state is not None and state.attempts == 2 and state.shared_s > 0


def test_a_run_whose_source_failed_before_the_fork_trains_by_itself_and_says_why(
    source: RunFolder, alone: list[RunFolder], tmp_path: Path, shapes_root: Path
) -> None:
    lose_the_checkpoint(source)
    plan = planned(source, tmp_path, shapes_root)
    process = start(plan)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert_same(folder_of(plan), alone[1])
    started, note, _ = read_journal(folder_of(plan), kinds=("event",))
    assert (started["event"], note["event"]) == ("started", "not_forked") and source.name in note["what"]
    state = folder_of(plan).state()
    assert state is not None and state.shared_s == 0


def lose_the_run(source: RunFolder) -> None:
    shutil.rmtree(source.path)


def lose_the_checkpoint(source: RunFolder) -> None:
    source.kept_checkpoint(2).unlink()


def damage_the_checkpoint(source: RunFolder) -> None:
    content = bytearray(source.kept_checkpoint(2).read_bytes())
    content[len(content) // 2] ^= 1
    source.kept_checkpoint(2).write_bytes(content)


def lose_an_epoch(source: RunFolder) -> None:
    lines = source.journal.read_text().splitlines(keepends=True)
    source.journal.write_text("".join(line for line in lines if '"kind": "epoch", "epoch": 1,' not in line))


def train_on_other_data(source: RunFolder) -> None:
    lines = source.journal.read_text().splitlines(keepends=True)
    started = {**json.loads(lines[0]), "data_sha256": "0123456789ab"}
    source.journal.write_text(json.dumps(started) + "\n" + "".join(lines[1:]))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lose_the_run, "is no run"),
        (lose_the_checkpoint, "has no checkpoint of that epoch"),
        (damage_the_checkpoint, "is damaged"),
        (lose_an_epoch, "lacks epoch 1"),
        (train_on_other_data, "other data"),
    ],
)
def test_nothing_is_taken_from_a_run_that_is_not_as_it_should_be(
    spoil: Callable[[RunFolder], None], why: str, source: RunFolder, tmp_path: Path, shapes_root: Path
) -> None:
    data_sha256 = data_recorded(source)
    spoil(source)
    plan = planned(source, tmp_path, shapes_root)
    folder = folder_of(plan).claim("test")
    said = take_over(plan, folder, data_sha256=data_sha256)
    assert why in said and source.name in said
    assert not folder.has_begun and not folder.journal.exists()


def test_what_was_left_by_a_rank_that_died_while_it_took_over_is_replaced(
    source: RunFolder, tmp_path: Path, shapes_root: Path
) -> None:
    plan = planned(source, tmp_path, shapes_root)
    folder = folder_of(plan).claim("test")
    assert take_over(plan, folder, data_sha256=data_recorded(source)) == ""
    journal = folder.journal.read_text()
    folder.checkpoint.unlink()  # the last that is written
    assert take_over(plan, folder, data_sha256=data_recorded(source)) == ""
    without_time = [{**json.loads(line), "time": 0} for line in folder.journal.read_text().splitlines()]
    assert without_time == [{**json.loads(line), "time": 0} for line in journal.splitlines()]
    assert folder.has_begun
