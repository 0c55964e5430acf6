"""A small set of one's own: real images, any layout, annotation files that a test may change first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from megdet.data.settings import DataSettings, SplitSettings

Content = dict[str, Any]


def write_own_set(
    root: Path, *, train: int = 8, val: int = 4, change: Callable[[Content, Content], None] | None = None
) -> DataSettings:
    """Below `root`: labels/learn.json with PNGs in pictures/a/, labels/check.json with PNGs in elsewhere/.

    `change` may alter the two files' contents. Images are grey with a bright box on each object; what is asked of the
    data is returned.
    """
    rng = np.random.default_rng(0)
    contents = []
    for count, first, folder, prefix in ((train, 1, "pictures", "a/"), (val, 101, "elsewhere", "")):
        content: Content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 7, "name": "cup"}, {"id": 2, "name": "pen"}],
        }
        (root / folder / prefix).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            height, width = (64, 80) if number % 3 else (80, 64)
            pixels = np.full((height, width), 90, dtype=np.uint8)
            name = f"{prefix}{number}.png"
            content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
            for category in (7, 2)[: number % 3]:
                x, y, w, h = (int(v) for v in rng.integers([2, 2, 12, 12], [30, 30, 30, 30]))
                pixels[y : y + h, x : x + w] = 200 if category == 7 else 20
                entry = {"image_id": number, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                content["annotations"].append({"id": len(content["annotations"]) + 1, **entry})
            Image.fromarray(pixels).save(root / folder / name)
        contents.append(content)
    if change:
        change(*contents)
    (root / "labels").mkdir(exist_ok=True)
    for content, name in zip(contents, ("learn.json", "check.json"), strict=True):
        (root / "labels" / name).write_text(json.dumps(content))
    return DataSettings(
        name="custom",
        root=str(root),
        train=SplitSettings("labels/learn.json", "pictures"),
        val=SplitSettings("labels/check.json", "elsewhere"),
        train_images=None,
        val_images=None,
        num_classes=None,
        min_size=64,
        max_size=107,
        workers=0,
    )
