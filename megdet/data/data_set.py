"""A whole data set: both splits read and checked together, and the facts about it that a plan needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megdet.data.annotation_cache import load_annotations
from megdet.data.annotations import Annotations
from megdet.data.coco import CocoSplit
from megdet.data.entries import shown
from megdet.data.files import DataFiles, check_files
from megdet.data.fingerprint import fingerprint, masks_fingerprint
from megdet.data.image_folder import ABSENT, file_sizes
from megdet.data.known import COCO, GENERATED
from megdet.data.settings import DataSettings
from megdet.errors import UserError, printable


@dataclass(frozen=True)
class DataFacts:
    """The facts about a data set that its files give."""

    train_images: int
    val_images: int
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    """12 hex digits: the content, see `megdet.data.fingerprint`."""
    masks_fingerprint: str | None
    """The same of the masks; None where they were not read."""
    repairs: tuple[str, ...]
    """What was read otherwise than it is written or is worth a look, a sentence each."""


@dataclass(frozen=True, eq=False)
class DataSet:
    """The splits as they are trained on and evaluated, and the facts about them."""

    train: CocoSplit
    val: CocoSplit
    facts: DataFacts


def read_data(data: DataSettings, *, masks: bool = False) -> DataSet:
    """Read and check the data that a config asks for, with `masks` the objects' masks too.

    Raises:
        UserError: where files are missing or not what they should be, the two do not belong together, or they are not
            what the config says of them (its counts, its fingerprint).
    """
    files = check_files(data)
    found = read_files(files, max_bad_images=data.max_bad_images, masks=masks)
    check_against(data, files, found.facts)
    return found


def read_files(files: DataFiles, *, max_bad_images: int, masks: bool = False) -> DataSet:
    """Read and check files, which are there. Raises UserError where they are not what they should be."""
    train, val = _read_splits(files, masks=masks)
    parts = [
        _Part(folder, split, file_sizes(folder, split.file_names))
        for folder, split in ((files.train_images, train), (files.val_images, val))
    ]
    missing = _check_images(parts, most=max_bad_images)
    repairs = dict.fromkeys((*train.repairs, *val.repairs, *missing, *_in_both(files, train, val)))
    masks_read = [part.annotations.masks for part in parts if part.annotations.masks is not None]
    facts = DataFacts(
        train_images=len(train.image_ids),
        val_images=len(val.image_ids),
        num_classes=len(train.category_ids),
        class_names=train.category_names,
        fingerprint=fingerprint([(part.annotations, part.file_sizes) for part in parts]),
        masks_fingerprint=masks_fingerprint(masks_read) if masks_read else None,
        repairs=tuple(map(printable, repairs)),
    )
    return DataSet(CocoSplit(files.train_images, train), CocoSplit(files.val_images, val), facts)


@dataclass(frozen=True, eq=False)
class _Part:
    folder: Path
    annotations: Annotations
    file_sizes: NDArray[np.int64]


def _read_splits(files: DataFiles, *, masks: bool) -> tuple[Annotations, Annotations]:
    whole = load_annotations(files.train_annotations, masks=masks)
    if files.val_fraction is None:
        train = whole
        val = _labelled_as(train, load_annotations(files.val_annotations, masks=masks))
    else:
        validates = np.array([_share(name) < files.val_fraction for name in whole.file_names])
        train, val = whole.of_images(~validates), whole.of_images(validates)
    for split, part, setting in ((train, "training", "data.train"), (val, "validation", "data.val")):
        if not (~split.crowds).any():
            if files.val_fraction is None or not (~whole.crowds).any():
                what = "only crowd regions" if len(split.crowds) else "no annotations"
                setting = setting if files.val_fraction is None else "data.train"
                raise UserError(
                    f"{split.path} has {what}: {part} needs objects; give {setting}.annotations a file with some"
                )
            raise UserError(
                f"{split.path} has no boxes for {part}: data.val_fraction={files.val_fraction} makes "
                f"{len(val.image_ids)} of {len(whole.image_ids)} images the validation images; set another"
            )
    return train, val


def _share(name: str) -> float:
    """In [0, 1), by the image's file name alone: neither the file's order nor other images move it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def _labelled_as(train: Annotations, val: Annotations) -> Annotations:
    """The validation images under the training images' categories. Raises UserError where they do not agree."""
    known = dict(zip(train.category_ids.tolist(), train.category_names, strict=True))
    own = dict(zip(val.category_ids.tolist(), val.category_names, strict=True))
    differ = [number for number, name in own.items() if known.get(number) != name]
    if differ:
        first = differ[0]
        there = f"category {first} is {shown(known[first])}" if first in known else f"there is no category {first}"
        raise UserError(
            f"{val.path}: category {first} is {shown(own[first])}, and in {train.path} {there}; "
            f"{len(differ) - 1} more differ. Both files need the same ids and names: classes are learned by the one "
            "and scored by the other"
        )
    if len(own) == len(known):
        return val
    left_out = [name for number, name in known.items() if number not in own]
    said = (
        f"{val.path.name}: categories of {train.path.name} that are not listed: {len(left_out)} (first: {left_out[0]})"
    )
    labelled = val.with_categories(train.category_ids, train.category_names)
    return replace(labelled, repairs=(*val.repairs, said))


def _check_images(parts: Sequence[_Part], *, most: int) -> list[str]:
    """Sentences on images without a file. Raises UserError where they are more than `most`."""
    said, total = [], 0
    for part in parts:
        absent = np.flatnonzero(part.file_sizes == ABSENT)
        total += absent.size
        if absent.size:
            name, image_id = part.annotations.file_names[absent[0]], part.annotations.image_ids[absent[0]]
            said.append(
                f"{part.annotations.path.name}: images without a file in {part.folder}: {absent.size} of "
                f"{len(part.file_sizes)} (first: {name}, id {image_id})"
            )
    if total > most:
        raise UserError(
            f"{'; '.join(said)}. That is {total} in all, and data.max_bad_images={most}: set the image folder from "
            "which these names start (data.train.images, data.val.images), fetch the files, or raise it"
        )
    return said


def _in_both(files: DataFiles, train: Annotations, val: Annotations) -> list[str]:
    """A warning about images in both splits, if there are any."""
    both = set(train.file_names) & set(val.file_names) if files.train_images == files.val_images else ()
    return [f"images that are in both training and validation: {len(both)} (first: {min(both)})"] if both else []


def check_against(data: DataSettings, files: DataFiles, facts: DataFacts) -> None:
    """Raises UserError if a config contradicts the files of its data."""
    split = "" if files.val_fraction is None else f" with data.val_fraction={files.val_fraction}"
    for name, path, what in (
        ("train_images", files.train_annotations, "images; it decides how many steps an epoch has"),
        ("val_images", files.val_annotations, "images"),
        ("num_classes", files.train_annotations, "categories"),
    ):
        asked, found = getattr(data, name), getattr(facts, name)
        if asked is not None and asked != found:
            asking = "use data=custom, which asks the files" if data.name == COCO else "null, which asks the file"
            raise UserError(
                f"data.{name}={asked}, but {path}{split} has {found} {what}. Set data.{name}={found}, or {asking}"
            )
    if data.masks_fingerprint is not None and facts.masks_fingerprint not in (None, data.masks_fingerprint):
        raise UserError(
            f"data.masks_fingerprint={data.masks_fingerprint}, but that of the masks in {files.train_annotations} and "
            f"{files.val_annotations} is {facts.masks_fingerprint}: not those of the plan. Put them back, or "
            "launch again without data.masks_fingerprint: other masks make another run"
        )
    if data.name not in GENERATED and data.fingerprint not in (None, facts.fingerprint):
        raise UserError(
            f"data.fingerprint={data.fingerprint}, but the content of {files.train_annotations} and "
            f"{files.val_annotations} with their images is {facts.fingerprint}: not the data that was planned with. "
            "Put that back, or launch again without data.fingerprint: other data makes another run"
        )
