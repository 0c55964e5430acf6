"""A run that has trained, whose data is gone: its validation images lie elsewhere now."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from megdet.data.files import coco_files
from megdet.planning.plan import make_plan
from tests.training.test_run import config_of, folder_of, start


@dataclass(frozen=True)
class Trained:
    folder: Path
    images: Path
    annotations: Path
    """Of the images that it was evaluated on."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shapes_root: Path) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    files = coco_files(shutil.copytree(shapes_root, place / "data"))
    plan = make_plan(config_of(place, place / "data"))
    process = start(plan)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    images = Path(shutil.move(files.val_images, place / "photos"))
    annotations = Path(shutil.move(files.val_annotations, place / "labels.json"))
    shutil.rmtree(place / "data")
    return Trained(folder_of(plan), images, annotations)
