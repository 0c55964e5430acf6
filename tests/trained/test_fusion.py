"""Fusion against ensemble-boxes 1.0.9 on the same boxes, and against what the methods are defined as.

`fused_by_ensemble_boxes.json` has three sources of boxes drawn around six objects (relative coordinates, as that
package takes them), and what its `weighted_boxes_fusion` and `nms` make of them at several IoUs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from megdet.trained.fusion import fuse

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "fused_by_ensemble_boxes.json").read_text())
SIDE = 100.0
"""Of the image, in pixels."""


def rows_of(boxes: list[list[float]], scores: list[float], labels: list[int], image: int = 7) -> NDArray[np.float64]:
    corners = SIDE * np.array(boxes, dtype=np.float64).reshape(-1, 4)
    ids = np.full(len(corners), float(image))
    return np.column_stack((ids, corners[:, :2], corners[:, 2:] - corners[:, :2], scores, labels))


SOURCES = [rows_of(**source) for source in REFERENCE["sources"]]


@pytest.mark.parametrize("case", [name for name in REFERENCE if name != "sources"])
def test_the_boxes_are_those_of_ensemble_boxes(case: str) -> None:
    method, iou = case.split()
    found, expected = fuse(SOURCES, method=method, iou=float(iou), most=1000), rows_of(**REFERENCE[case])
    expected = expected[np.argsort(-expected[:, 5], kind="stable")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert 6 <= len(found) < sum(map(len, SOURCES))


def test_a_fused_box_is_the_mean_by_score_and_what_one_of_three_found_counts_a_third() -> None:
    first = rows_of([[0.1, 0.1, 0.5, 0.5]], [0.9], [1])
    second = rows_of([[0.12, 0.1, 0.5, 0.5], [0.7, 0.7, 0.9, 0.9]], [0.3, 0.6], [1, 1])
    found = fuse([first, second, second[:0]], most=10)
    assert found[:, 5].tolist() == pytest.approx([0.6 * 2 / 3, 0.6 / 3])
    assert found[0, 1:5].tolist() == pytest.approx([10.5, 10, 39.5, 40])
    assert found[1, 1:5].tolist() == pytest.approx([70, 70, 20, 20])


def test_images_and_categories_are_fused_apart_and_the_best_of_each_image_are_kept() -> None:
    box = [0.2, 0.2, 0.6, 0.6]
    source = np.concatenate([rows_of([box, box], [0.5, 0.4], [1, 2], image) for image in (3, 11)])
    for method in ("wbf", "nms"):
        found = fuse([source, source], method=method, most=10)
        assert found[:, 0].tolist() == [3, 3, 11, 11] and found[:, 6].tolist() == [1, 2, 1, 2]
        assert found[:, 5].tolist() == pytest.approx([0.5, 0.4, 0.5, 0.4])
        assert fuse([source, source], method=method, most=1)[:, 6].tolist() == [1, 1]


def test_nothing_found_is_nothing_fused() -> None:
    nothing = SOURCES[0][:0]
    for method in ("wbf", "nms"):
        assert fuse([nothing, nothing], method=method, most=5).shape == (0, 7)
        assert len(fuse([nothing, SOURCES[0]], method=method, most=50)) > 0
