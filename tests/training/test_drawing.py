from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from megdet.training.drawing import (
    COLOURS,
    MAX_NEGATIVES,
    NEGATIVE,
    POSITIVE,
    detections_drawn,
    draw_proposals,
    save_picture,
)

NAMES = ["cup", "traffic light"]


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return np.asarray(image)


def pixels_of(image: NDArray[np.uint8], colour: str) -> int:
    return int((image == ImageColor.getrgb(colour)).all(axis=-1).sum())


def test_a_box_is_outlined_in_the_colour_of_its_class_where_it_lies(tmp_path: Path) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    box = np.array([[100.0, 200.0, 300.0, 400.0]])
    save_picture(detections_drawn(image, boxes=box, labels=[2], scores=[0.9], names=NAMES), tmp_path / "a.png")
    drawn = picture(tmp_path / "a.png")
    colour = ImageColor.getrgb(COLOURS[1])
    assert drawn.shape == (480, 640, 3)
    assert tuple(drawn[300, 100]) == tuple(drawn[300, 300]) == tuple(drawn[400, 200]) == colour
    assert (drawn[210:390, 110:290] == 90).all(), "the inside of the box is not covered"
    assert pixels_of(drawn, COLOURS[0]) == 0
    assert pixels_of(drawn[170:200], "white") > 50, "the label is written above the box"


def test_ground_truth_is_dashed_and_told_apart_from_detections(tmp_path: Path) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    box = np.array([[100.0, 100.0, 500.0, 400.0]])
    save_picture(detections_drawn(image, boxes=np.zeros((0, 4)), labels=[], scores=[], names=NAMES,
        truth_boxes=box, truth_labels=[1],
    ), tmp_path / "a.png")  # fmt: skip
    edge = picture(tmp_path / "a.png")[100, 110:490]
    white = (edge == 255).all(axis=-1)
    assert 0.3 < white.mean() < 0.7 and np.diff(white.astype(int)).astype(bool).sum() > 20


def test_detections_below_the_threshold_are_left_out(tmp_path: Path) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    boxes = np.array([[100.0, 100.0, 200.0, 200.0]])
    save_picture(detections_drawn(image, boxes=boxes, labels=[1], scores=[0.49], names=NAMES), tmp_path / "a.png")
    assert (picture(tmp_path / "a.png") == 90).all()


def test_a_small_image_is_enlarged_with_its_boxes(tmp_path: Path) -> None:
    image = np.full((96, 128, 3), 90, np.uint8)
    boxes = np.array([[20.0, 40.0, 60.0, 80.0]])
    save_picture(detections_drawn(image, boxes=boxes, labels=[1], scores=[0.9], names=NAMES), tmp_path / "a.png")
    drawn = picture(tmp_path / "a.png")
    assert drawn.shape == (480, 640, 3)
    assert tuple(drawn[300, 100]) == tuple(drawn[300, 300]) == ImageColor.getrgb(COLOURS[0])


@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (630, 470, 640, 480), (-20, -20, 700, 500), (50, 50, 50, 50), (60, 60, 50, 50)]
)
def test_boxes_on_the_border_outside_or_empty_can_be_drawn(
    tmp_path: Path, box: tuple[float, float, float, float]
) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    boxes = np.array([box], dtype=np.float32)
    save_picture(detections_drawn(image, boxes=boxes, labels=[2], scores=[1.0], names=NAMES,
        truth_boxes=boxes, truth_labels=[2],
    ), tmp_path / "deep" / "a.png")  # fmt: skip
    assert (picture(tmp_path / "deep" / "a.png") == ImageColor.getrgb(COLOURS[1])).all(axis=-1).any()


def test_positive_proposals_are_drawn_thicker_and_in_another_colour_than_negative_ones(tmp_path: Path) -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    positive, negative = np.array([[100.0, 100.0, 200.0, 300.0]]), np.array([[300.0, 100.0, 400.0, 300.0]])
    draw_proposals(image, tmp_path / "a.png", positive=positive, negative=negative)
    row = picture(tmp_path / "a.png")[200]
    thick = (row[:250] == ImageColor.getrgb(POSITIVE)).all(axis=-1).sum()
    thin = (row[250:] == ImageColor.getrgb(NEGATIVE)).all(axis=-1).sum()
    assert thick > 2 * thin > 0
    assert pixels_of(picture(tmp_path / "a.png")[:40, :250], "white") > 50, "the counts stand in a corner"


def test_of_many_negative_proposals_a_few_are_drawn_and_every_positive(tmp_path: Path) -> None:
    image = np.full((480, 960, 3), 90, np.uint8)
    left = np.arange(10.0, 910.0, 9.0)
    boxes = np.stack([left, np.full_like(left, 100), left + 4, np.full_like(left, 200)], axis=1)
    nothing = np.zeros((0, 4))

    def drawn(colour: str) -> int:
        line = (picture(tmp_path / "a.png")[150] == ImageColor.getrgb(colour)).all(axis=-1)
        return int((np.diff(line.astype(int)) == 1).sum())

    draw_proposals(image, tmp_path / "a.png", positive=nothing, negative=boxes)
    assert 0 < drawn(NEGATIVE) <= 2 * MAX_NEGATIVES < len(boxes), "two edges each"
    draw_proposals(image, tmp_path / "a.png", positive=boxes[::10], negative=nothing)
    assert drawn(POSITIVE) >= len(boxes[::10])


def test_a_picture_of_proposals_carries_their_numbers_for_who_composes_a_figure(tmp_path: Path) -> None:
    image, nothing = np.full((480, 640, 3), 90, np.uint8), np.zeros((0, 4))
    draw_proposals(image, tmp_path / "a.png", positive=nothing, negative=np.zeros((37, 4)))
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.info == {"positive": "0", "negative": "37"}
