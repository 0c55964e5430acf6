"""Objects are matched to boxes as torchvision matches them, several images at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from megdet.model import matching
from megdet.model.matching import filled_up, is_box, match


def boxes_of(count: int, generator: torch.Generator) -> Tensor:
    """On a grid of 4 pixels, so that many overlap an object equally."""
    corners = 4 * torch.randint(0, 12, (count, 2), generator=generator).float()
    return torch.cat([corners, corners + 4 * torch.randint(1, 6, (count, 2), generator=generator)], dim=1)


def batch(*counts: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [boxes_of(count, generator) for count in counts]


@pytest.mark.parametrize("at_once", [matching.AT_ONCE, 400, 1])
@pytest.mark.parametrize("seed", range(5))
def test_matches_are_torchvisions_to_the_bit(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "AT_ONCE", at_once)
    objects, boxes = batch(3, 0, 7, 1, seed=seed), batch(40, 30, 50, 1, seed=seed + 100)
    found = match(filled_up(objects), filled_up(boxes))
    low, high = 0.3, 0.7
    for image, (of_image, candidates) in enumerate(zip(objects, boxes, strict=True)):
        overlap, matched, nearest = (
            values[image, : len(candidates)] for values in (found.overlap, found.object, found.is_nearest)
        )
        if not len(of_image):
            assert bool((overlap < 0).all()) and not bool(nearest.any())
            continue
        expected = box_iou(of_image, candidates)
        assert torch.equal(overlap, expected.max(dim=0).values)
        by_torchvision = Matcher(high, low, allow_low_quality_matches=True)(expected)
        positive = (overlap >= high) | nearest
        assert torch.equal(positive, by_torchvision >= 0)
        assert torch.equal(matched[positive], by_torchvision[positive])
        assert torch.equal(~positive & (overlap < low), by_torchvision == Matcher.BELOW_LOW_THRESHOLD)


def test_boxes_that_all_images_share_are_matched_to_each() -> None:
    objects, (shared,) = batch(2, 5, 0, seed=1), batch(60, seed=2)
    once, each = match(filled_up(objects), shared), match(filled_up(objects), filled_up([shared] * 3))
    assert torch.equal(once.overlap, each.overlap)
    assert torch.equal(once.object, each.object)
    assert torch.equal(once.is_nearest, each.is_nearest)


def test_images_without_objects_have_no_matches() -> None:
    found = match(filled_up([torch.zeros(0, 4)] * 2), torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
    assert found.overlap.tolist() == [[-1.0], [-1.0]]
    assert found.is_nearest.tolist() == [[False], [False]]


def test_a_box_that_rounding_moved_out_of_its_image_is_one() -> None:
    filled = filled_up(
        [torch.tensor([[-1e-3, 0.0, 5.0, 5.0], [0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 2.0, 3.0, 3.0]])]
    )
    assert is_box(filled).tolist() == [[True, True], [True, False]]
