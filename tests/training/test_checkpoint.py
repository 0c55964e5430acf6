"""What goes into a checkpoint comes out of it, and what is no checkpoint of this run is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from megdet.errors import UserError
from megdet.training.checkpoint import Checkpoint, write_tensors
from megdet.training.divergence import LossWatch
from megdet.training.state import TrainingState
from megdet.training.totals import EpochTotals

CPU = torch.device("cpu")


def training(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def make_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1.0, 1.0, 15).view(5, 3)).square().sum().backward()
    optimizer.step()


def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    (tmp_path / ".checkpoint.pt.123-left-by-a-killed-writer").write_bytes(b"half")
    model, optimizer = training(0)
    make_step(model, optimizer)
    totals = EpochTotals(
        2, loss=3.5, losses={"rpn_box": 0.1}, counts={"rpn_positive": 7.0}, grad_norm=2.0, train_s=9.25
    )
    state = TrainingState(17, totals, LossWatch(0.1, 17, 0.7, 0.05), past_train_s=100.5, eval_s=3.0)
    Checkpoint.of("run-s0", model, optimizer, state).write(path)
    make_step(model, optimizer)

    again, its_optimizer = training(1)
    checkpoint = Checkpoint.read(path, CPU, of_run="run-s0")
    assert checkpoint is not None and checkpoint.restore(again, its_optimizer) == state
    make_step(again, its_optimizer)
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_run_that_has_no_checkpoint_yet_has_none(tmp_path: Path) -> None:
    assert Checkpoint.read(tmp_path / "checkpoint.pt", CPU) is None


def test_a_checkpoint_of_an_earlier_version_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    model, optimizer = training(0)
    totals = {"steps": 1, "loss": 1.0, "grad_norm": 1.0, "samples": {"rpn_positive": 1.0}, "train_s": 1.0}
    write_tensors(
        path,
        {
            "run_id": "run-s0", "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 17,
            "totals": totals, "watch": vars(LossWatch()), "past_train_s": 0.0, "eval_s": 0.0,
        },
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"checkpoint\.pt is .* of another version .*sweep\.on_existing=force"
    ) as refused:
        Checkpoint.read(path, CPU)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    Checkpoint.of("run-s0", *training(0), TrainingState()).write(path)
    with pytest.raises(UserError, match=r"is of the run run-s0, not of run-s1; .*model\.backbone\.weights=FILE"):
        Checkpoint.read(path, CPU, of_run="run-s1")
