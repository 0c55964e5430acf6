"""A trained backbone as the start of other runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megdet.errors import UserError
from megdet.model.detector import Detector
from megdet.runs.run_files import CHECKPOINT
from megdet.studies.backbone_weights import save_backbone
from megdet.training.checkpoint import Checkpoint
from megdet.training.state import TrainingState
from tests.model.detectors import small_detector


def save_checkpoint(detector: Detector, folder: Path) -> None:
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.1)
    Checkpoint.of("some-run", detector, optimizer, TrainingState(step=7)).write(folder / CHECKPOINT)


def test_a_detector_that_starts_from_it_has_its_body_and_heads_of_its_own(tmp_path: Path) -> None:
    trained = small_detector()
    with torch.no_grad():
        for value in trained.state_dict().values():
            value += 1
    save_checkpoint(trained, tmp_path)
    numbers = save_backbone(tmp_path, tmp_path / "deep" / "backbone.pt")
    assert numbers == sum(value.numel() for value in trained.backbone.body.state_dict().values())
    fresh, started = small_detector(), small_detector(weights=tmp_path / "deep" / "backbone.pt")
    for name, value in started.state_dict().items():
        source = trained if name.startswith("backbone.body.") else fresh
        assert torch.equal(value, source.state_dict()[name]), name


def test_a_file_that_runs_may_have_started_from_is_not_overwritten(tmp_path: Path) -> None:
    save_checkpoint(small_detector(), tmp_path)
    file = tmp_path / "backbone.pt"
    file.write_bytes(b"old")
    with pytest.raises(UserError, match="choose another name"):
        save_backbone(tmp_path, file)
    assert file.read_bytes() == b"old"


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint\.pt"):
        save_backbone(tmp_path, tmp_path / "backbone.pt")
