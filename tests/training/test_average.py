"""The average of the weights: what it is of, who uses it, and that a stop changes nothing."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from megdet.config.compose import compose
from megdet.config.optimizer import AgvmSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.identity import run_id_of
from megdet.planning.plan import Plan, make_plan
from megdet.runs.files import short_sha256
from megdet.runs.folder import RunFolder
from megdet.runs.journal import read_journal
from megdet.trained.run import TrainedRun
from megdet.training.average import WeightAverage, evaluated_weights
from megdet.training.checkpoint import Checkpoint
from megdet.training.starting_point import start_from_run
from tests.tiny import tiny_detector
from tests.training.test_run import STEPS_PER_EPOCH, config_of, folder_of, start, wait_for_step

CPU = torch.device("cpu")


def moving_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def move(model: nn.Module) -> dict[str, Tensor]:
    """Other weights and statistics; a copy of them."""
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1 if value.dtype == torch.long else torch.randn_like(value))
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_weights_and_running_statistics_are_averaged_with_a_decay_that_grows_to_what_is_asked() -> None:
    model = moving_model()
    average, expected = WeightAverage(model, 0.5), {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, 20):
        now, decay = move(model), min(0.5, (1 + step) / (10 + step))
        average.update(step)
        expected = {
            name: decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            for name, value in now.items()
        }
    assert decay == 0.5
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)


def test_the_model_has_the_average_for_an_evaluation_and_then_its_own_weights_again_bit_for_bit() -> None:
    model = moving_model()
    average = WeightAverage(model, 0.9)
    own = move(model)
    average.update(1)
    averaged = {name: value.clone() for name, value in average.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), evaluated_weights(average):
        assert all(torch.equal(value, averaged[name]) for name, value in model.state_dict().items())
        raise KeyboardInterrupt
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, averaged[name]) for name, value in average.state_dict().items())


def large_batch_config(tmp_path: Path, shapes_root: Path) -> Config:
    """AGVM and an average, both from the first steps on."""
    config = config_of(tmp_path, shapes_root)
    config.schedule.warmup_epochs = 0.0
    config.optimizer.name, config.optimizer.agvm = "agvm", AgvmSettings(interval=2, alpha=0.5)
    config.optimizer.ema_decay = 0.9
    return config


def run_of(plan: Plan) -> None:
    output, _ = (process := start(plan)).communicate(timeout=600)
    assert process.returncode == 0, output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Plan:
    plan = make_plan(large_batch_config(tmp_path_factory.mktemp("whole"), shapes_root))
    run_of(plan)
    return plan


def checkpoint_of(plan: Plan) -> Checkpoint:
    checkpoint = Checkpoint.read(folder_of(plan) / "checkpoint.pt", CPU)
    assert checkpoint is not None and checkpoint.average is not None
    return checkpoint


@pytest.mark.slow
def test_a_run_with_agvm_and_an_average_resumes_to_the_same_bits(
    finished: Plan, tmp_path: Path, shapes_root: Path
) -> None:
    plan = make_plan(large_batch_config(tmp_path, shapes_root))
    process = start(plan)
    wait_for_step(plan, STEPS_PER_EPOCH + 1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 3, output
    run_of(plan)
    found, expected = checkpoint_of(plan), checkpoint_of(finished)
    assert found.average is not None and expected.average is not None
    for ours, theirs in ((found.model, expected.model), (found.average, expected.average)):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    factors, theirs = (
        [group["factor"] for group in checkpoint.optimizer["param_groups"]] for checkpoint in (found, expected)
    )
    assert factors == theirs != [1.0] * len(factors)
    measured = ("mmAP", "lr_factor_rpn", "loss")
    lines = [
        [[line.get(key) for key in measured] for line in read_journal(RunFolder(folder_of(p)), kinds=("step", "epoch"))]
        for p in (plan, finished)
    ]
    assert lines[0] == lines[1]


def test_what_is_evaluated_loaded_and_begun_from_is_the_average(finished: Plan) -> None:
    checkpoint, run = checkpoint_of(finished), TrainedRun(folder_of(finished))
    assert checkpoint.average is not None
    loaded = run.detector.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in checkpoint.average.items())
    assert any(not torch.equal(value, loaded[name]) for name, value in checkpoint.model.items())
    data = Path(finished.config.data.root)
    model = replace(finished.config.model, init_from=str(run.folder.path))
    model.init_sha256 = short_sha256(run.folder.checkpoint)
    begun = tiny_detector(bn_size=4)
    assert start_from_run(begun, model, run.classes) == []
    assert all(
        torch.equal(value, loaded[name]) for name, value in begun.state_dict().items() if "num_batch" not in name
    )
    scores = run.evaluate(data / "annotations" / "instances_val2017.json", data / "val2017")
    last = read_journal(RunFolder(folder_of(finished)), kinds=("epoch",))[-1]
    assert scores.metrics["mmAP"] == pytest.approx(last["mmAP"], abs=1e-9)
    assert scores.metrics["mmAR"] == pytest.approx(last["mmAR"], abs=1e-9)


def test_an_average_is_part_of_a_runs_id_and_none_is_not() -> None:
    assert run_id_of(compose([])) == run_id_of(compose(["optimizer.ema_decay=null"]))
    assert run_id_of(compose([])) != run_id_of(compose(["optimizer.ema_decay=0.999"]))


def test_a_decay_of_one_would_never_move_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer.ema_decay=1.*above 0 and at most 0.99999"):
        make_plan(compose(["optimizer.ema_decay=1.0", "cluster=paper"]))
