"""Files that went wrong in thousands of ways: read as they are meant, or refused in one message. Nothing between."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megdet.data.annotations import read_annotations
from megdet.errors import UserError
from tests.data.annotation_oracle import Meaning, Refused, meaning_of
from tests.data.mutations import mutated

ORIGINAL: dict[str, Any] = {
    "info": {"year": 2020},
    "licenses": [],
    "images": [
        {"id": 10 * number, "file_name": f"{number}.jpg", "height": 40 + number, "width": 60, "license": 1}
        for number in (3, 1, 2, 8, 7)
    ],
    "categories": [{"id": 90, "name": "cup"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {
            "id": 100 + number,
            "image_id": 10 * (3, 1, 2, 8)[number % 4],
            "category_id": (90, 1, 18)[number % 3],
            "bbox": [1 + number % 30, 2.5 + number % 20, 9.25 + number % 15, 8 + number % 10],
            "area": 50.5 + number,
            "iscrowd": int(number % 11 == 0),
            "segmentation": [[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]],
        }
        for number in range(40)
    ],
}


def as_read(path: Path) -> Meaning:
    found = read_annotations(path)
    ids, category_ids = found.image_ids.tolist(), found.category_ids.tolist()
    images = [
        (number, name, width, height)
        for number, name, (height, width) in zip(ids, found.file_names, found.sizes.tolist(), strict=True)
    ]
    boxes = [
        (ids[owner], category_ids[label - 1], tuple(box), area, crowd)
        for owner, label, box, area, crowd in zip(
            found.owner.tolist(), found.labels.tolist(), found.boxes.tolist(), found.areas.tolist(),
            found.crowds.tolist(), strict=True,
        )
    ]  # fmt: skip
    return Meaning(images, dict(zip(category_ids, found.category_names, strict=True)), boxes, bool(found.repairs))


def check(seed: int, path: Path) -> str:
    """Hold the reader to the oracle on one mutated file; what became of it."""
    what, raw = mutated(seed, ORIGINAL)
    path.write_bytes(raw)
    try:
        expected = meaning_of(raw)
    except Refused:
        with pytest.raises(UserError) as error:
            as_read(path)
        message = str(error.value)
        assert str(path) in message and "\n" not in message and len(message) < 1000, message
        return "refused"
    try:
        found = as_read(path)
    except UserError as error:
        raise AssertionError(f"seed {seed}, {what}: refused without need: {error}") from error
    assert found == expected, f"seed {seed}, {what}"
    return "repaired" if found.is_repaired else "as written"


def hold(seeds: range, path: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        outcomes[check(seed, path)] += 1
    return outcomes


def test_of_300_mutated_files_none_is_silently_wrong(tmp_path: Path) -> None:
    outcomes = hold(range(300), tmp_path / "instances.json")
    assert min(outcomes[outcome] for outcome in ("refused", "repaired", "as written")) > 20, outcomes


@pytest.mark.slow
def test_of_6000_mutated_files_none_is_silently_wrong(tmp_path: Path) -> None:
    outcomes = hold(range(300, 6300), tmp_path / "instances.json")
    assert min(outcomes[outcome] for outcome in ("refused", "repaired", "as written")) > 600, outcomes
