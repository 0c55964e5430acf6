"""Which images of training a run shows."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from megdet.model.output import SampledRegions
from megdet.runs.folder import RunFolder
from megdet.training.pictures import LastPass, draw_proposals_of
from tests.model.detectors import detect, random_batch, small_detector, train_pass


def test_the_last_training_pass_is_kept_and_an_evaluation_after_it_changes_nothing() -> None:
    detector = small_detector()
    last = LastPass(detector)
    train_pass(detector, random_batch([(64, 96)]))
    batch = random_batch([(64, 96), (50, 80)], seed=1)
    regions = train_pass(detector, batch).regions
    detect(detector, random_batch([(64, 64)], seed=2))
    assert last.batch is batch and last.regions is regions


def test_the_images_with_the_smallest_and_largest_shares_of_positives_are_shown_without_their_padding(
    tmp_path: Path,
) -> None:
    sizes = [(64, 96), (50, 80), (64, 96), (64, 96), (64, 96)]
    last = LastPass(small_detector())
    last.batch = random_batch(sizes)
    image = torch.arange(5).repeat_interleave(10)
    positives = torch.tensor([3, 0, 9, 5, 4])  # of ten in each image
    positive = torch.arange(10).repeat(5) < positives[image]
    last.regions = SampledRegions(torch.tensor([[4.0, 4.0, 40.0, 40.0]]).expand(50, 4), image, positive)
    draw_proposals_of(last, RunFolder(tmp_path), epoch=6)
    shown = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert shown == [f"proposals-epoch06-{image_id:012}.png" for image_id in (0, 1, 2, 3)]
    with Image.open(tmp_path / "pictures" / shown[1]) as picture:
        assert picture.width / picture.height == 80 / 50


def test_an_attempt_without_a_training_pass_draws_nothing(tmp_path: Path) -> None:
    draw_proposals_of(LastPass(small_detector()), RunFolder(tmp_path), epoch=1)
    assert not (tmp_path / "pictures").exists()
