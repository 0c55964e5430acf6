"""The check of own parts against the promise: good ones pass, and each way to break it is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from megdet import check_equivalence
from megdet.check_equivalence import CASES, main
from tests.training.own_parts import FinestLevelMaxPool, SignMomentum

HERE = "tests.test_check_equivalence"
SMALL = ("model=tiny", "lr.base=0.06")
FEW = tuple(case for case in CASES if case.gpus <= 2 and "passes" not in case.name)


def own(group: str, part: str, **arguments: float) -> list[str]:
    inner = "".join(f",{name}:{value}" for name, value in arguments.items())
    return [f"{group}.name=mine", f"{group}.custom={{_target_:{part}{inner}}}"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process and two, sublinear memory, resumed: what costs little time."""
    monkeypatch.setattr(check_equivalence, "CASES", FEW)


@pytest.mark.slow
def test_the_built_in_parts_keep_the_promise_on_five_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(SMALL)) == 0
    said = capsys.readouterr().out
    assert said.count("the same") == 6 and "does not depend on the layout" in said
    assert {(case.gpus, case.images_per_gpu) for case in CASES} == {(1, 8), (2, 4), (4, 2), (2, 2), (1, 4)}


@pytest.mark.slow
def test_parts_of_ones_own_that_keep_it_pass(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        *own("model.norm", "tests.training.own_parts.group_norm", groups=4),
        *own("model.roi_pool", "tests.training.own_parts.FinestLevelMaxPool"),
        *own("optimizer", "torch.optim.AdamW", weight_decay=0.05),
    ]
    assert main([*SMALL, *parts]) == 0
    assert "model/norm=mine (tests.training.own_parts.group_norm)" in capsys.readouterr().out


class OfTheGPU(nn.BatchNorm2d):
    """Statistics of whatever images share a GPU."""


def batch_norm(channels: int, *, bn_size: int, group: dist.ProcessGroup | None) -> nn.Module:
    return OfTheGPU(channels)


class NoisyPool(FinestLevelMaxPool):
    """Draws from torch's generator."""

    def forward(self, features: Sequence[Tensor], table: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        pooled = super().forward(features, table, boxes, images)
        return pooled * (1 + 1e-4 * torch.rand(()))


class Forgetful(SignMomentum):
    """A momentum that no checkpoint holds."""

    def __init__(self, parameters: Any, *, lr: float) -> None:
        super().__init__(parameters, lr=lr, beta=0.5)
        self.means: dict[int, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.means.setdefault(id(parameter), torch.zeros_like(parameter))
                mean.mul_(0.9).add_(parameter.grad)
                parameter.add_(mean, alpha=-group["lr"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "differs"),
    [
        pytest.param(own("model.norm", f"{HERE}.batch_norm"), "2 GPUs x 4 images", marks=pytest.mark.slow),
        pytest.param(own("model.roi_pool", f"{HERE}.NoisyPool"), "2 GPUs x 4 images", marks=pytest.mark.slow),
        (own("optimizer", f"{HERE}.Forgetful"), "stopped and resumed"),
    ],
    ids=["statistics_of_the_gpu", "a_random_generator", "a_state_that_no_checkpoint_holds"],
)
def test_each_way_to_break_the_promise_is_found(
    part: list[str], differs: str, few: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *part]) == 1
    said = capsys.readouterr().out
    [row] = [line for line in said.splitlines() if line.strip().startswith(differs)]
    assert "DIFFERS, most in " in row and "What is learned depends on the layout" in said


def test_what_is_asked_wrongly_is_one_message(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "elsewhere.yaml").write_text("name: mine\ncustom: {_target_: no_such_package.Thing}\n")
    assert main(["optimizer=nowhere"]) == 2
    assert "there is no such option" in capsys.readouterr().err
    assert main([*SMALL, "--config-dir", str(tmp_path), "optimizer=elsewhere"]) == 2
    assert "optimizer.custom: no_such_package.Thing cannot be imported" in capsys.readouterr().err
