"""Where the images and annotation files of a data set lie: the folder layout of COCO 2017."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from megdet.errors import UserError


@dataclass(frozen=True)
class DataFiles:
    """The two image folders and the two annotation files of a data set."""

    train_images: Path
    train_annotations: Path
    val_images: Path
    val_annotations: Path


def coco_files(root: Path | str) -> DataFiles:
    """The paths that COCO 2017 has below `root`, whether or not they exist."""
    root = Path(root)
    return DataFiles(
        train_images=root / "train2017",
        train_annotations=root / "annotations" / "instances_train2017.json",
        val_images=root / "val2017",
        val_annotations=root / "annotations" / "instances_val2017.json",
    )


def check_files(files: DataFiles) -> None:
    """Raises UserError naming every path that is missing. Does not look at the single images."""
    missing = []
    for field in fields(files):
        path: Path = getattr(files, field.name)
        if not (path.is_file() if path.suffix == ".json" else path.is_dir()):
            missing.append(str(path))
    if missing:
        raise UserError(
            f"data.root={files.train_images.parent} lacks: {', '.join(missing)}. "
            "Ways out: point data.root=FOLDER at COCO 2017 (train2017/, val2017/, annotations/); "
            "fetch it from https://cocodataset.org/#download (train images 18 GB, val images 1 GB, "
            "train/val annotations 241 MB) and unpack the three archives there; "
            "or use data=shapes, which is generated and needs no download."
        )
