"""The paths of a data set's images and annotation files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from megdet.data.known import COCO
from megdet.data.settings import DataSettings, SplitSettings
from megdet.errors import UserError
from megdet.settings.paths import expanded


@dataclass(frozen=True)
class DataFiles:
    """The two image folders and the two annotation files of a data set."""

    train_images: Path
    train_annotations: Path
    val_images: Path
    val_annotations: Path
    val_fraction: float | None = None
    """Where given, both splits are parts of one file: the share of its images that validate."""

    def missing(self) -> list[Path]:
        """The missing paths. Does not look at single images."""
        files = dict.fromkeys((self.train_annotations, self.val_annotations))
        folders = dict.fromkeys((self.train_images, self.val_images))
        # os.path, for Path.is_dir raises where a folder above may not be looked into.
        return [path for path in folders if not os.path.isdir(path)] + [
            path for path in files if not os.path.isfile(path)
        ]


def coco_files(root: Path | str) -> DataFiles:
    """The paths that COCO 2017 has below `root`, whether or not they exist."""
    root = Path(root)
    return DataFiles(
        train_images=root / "train2017",
        train_annotations=root / "annotations" / "instances_train2017.json",
        val_images=root / "val2017",
        val_annotations=root / "annotations" / "instances_val2017.json",
    )


def files_of(data: DataSettings) -> DataFiles:
    """The files that a config asks for, whether or not they exist.

    Raises:
        UserError: where its settings do not make a training and a validation set.
    """
    root = expanded(data.root)
    if not data.has_own_places:
        return coco_files(root)
    if data.train.annotations is None:
        raise UserError("data.train.annotations is not given: name the COCO annotation file of the training images")
    train_annotations = root / expanded(data.train.annotations)
    train_images = _images_of(data.train, train_annotations, root)
    if data.val_fraction is not None:
        if data.val.annotations is not None or data.val.images is not None:
            raise UserError(
                f"data.val_fraction={data.val_fraction} takes the validation images from data.train.annotations, "
                "and data.val names others; give one of the two"
            )
        return DataFiles(train_images, train_annotations, train_images, train_annotations, data.val_fraction)
    if data.val.annotations is None:
        raise UserError(
            "data.val.annotations is not given: name the annotation file of the validation images, or set "
            "data.val_fraction=0.1 to keep a tenth of the training images for validation"
        )
    val_annotations = root / expanded(data.val.annotations)
    return DataFiles(train_images, train_annotations, _images_of(data.val, val_annotations, root), val_annotations)


def _images_of(split: SplitSettings, annotations: Path, root: Path) -> Path:
    return annotations.parent if split.images is None else root / expanded(split.images)


def _of_another_kind(path: Path) -> str:
    """What stands where a file or a folder is looked for."""
    return (
        " (a folder, not a file)" if os.path.isdir(path) else " (a file, not a folder)" if os.path.isfile(path) else ""
    )


def check_files(data: DataSettings) -> DataFiles:
    """The files of a config. Raises UserError naming every path that is missing; does not look at single images."""
    files = files_of(data)
    missing = ", ".join(f"{path}{_of_another_kind(path)}" for path in files.missing())
    if missing and data.has_own_places:
        raise UserError(
            f"data={data.name}: {missing} is not there; give data.train.annotations and data.val.annotations (COCO "
            "annotation files) and data.train.images and data.val.images (folders), below data.root="
            f"{data.root} or as absolute paths"
        )
    if missing and data.name != COCO:
        raise UserError(
            f"data={data.name}: data.train.annotations is not given, and data.root={data.root} has not the layout of "
            f"COCO 2017 (it lacks {missing}). Name your files: data.train.annotations, and data.val.annotations or "
            "data.val_fraction; or put them into that layout"
        )
    if missing:
        raise UserError(
            f"data.root={data.root} lacks: {missing}. "
            "Ways out: point data.root=FOLDER at COCO 2017 (train2017/, val2017/, annotations/); "
            "fetch it from https://cocodataset.org/#download (train images 18 GB, val images 1 GB, "
            "train/val annotations 241 MB) and unpack the three archives there; "
            "use data=custom for images and annotation files of your own, wherever they are; "
            "or use data=shapes, which is generated and needs no download."
        )
    return files
