"""Sets on disk for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megdet.data.coco import CocoSplit
from megdet.data.files import DataFiles, coco_files
from megdet.data.generated import generate

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> DataFiles:
    """80 training and 21 validation images, 128 pixels on the short side. Not to be written to."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    generate("shapes", root, train_images=80, val_images=21, image_size=128, seed=5)
    return coco_files(root)


@pytest.fixture(scope="session")
def split(shapes: DataFiles) -> CocoSplit:
    return CocoSplit(shapes.train_images, shapes.train_annotations)


@pytest.fixture
def write_annotations(tmp_path: Path) -> Callable[..., Path]:
    """Writes an annotation file from its lists, or from a text."""

    def write(content: dict[str, Any] | list[Any] | str) -> Path:
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write
