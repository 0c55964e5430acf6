"""Resolves data settings for a plan: absolute paths, and counts from the files."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

from megdet.data.files import DataFiles, check_files, files_of
from megdet.data.known import CLASSES, COCO, COCO_COUNTS, GENERATED, LEAST_SIZE, generated_as
from megdet.data.settings import DataSettings
from megdet.errors import UserError
from megdet.settings.paths import expanded

if TYPE_CHECKING:
    from megdet.data.data_set import DataFacts


class DataResolver:
    """Resolves the data of many experiments; what several of them share is read once."""

    def __init__(self) -> None:
        self._read: dict[tuple[DataFiles, int, bool], DataFacts | UserError] = {}

    def resolve(self, data: DataSettings, *, masks: bool = False) -> DataSettings:
        """The same with absolute places, and with `train_images`, `val_images`, `num_classes` and `fingerprint` set.

        COCO 2017 and generated sets are known by their names and counts, so they can be planned without the files.
        Where files are there, they are read and checked, with `masks` the objects' masks too. Of any other data the
        fingerprint is part of what is asked.

        Raises:
            UserError: where the data is not what it should be, or is not there and not known without.
        """
        data.check("data.")
        data = _with_absolute_places(data)
        if data.name in GENERATED:
            drawn = generated_as(data.name)
            if data.fingerprint not in (None, drawn):
                raise UserError(
                    f"data.fingerprint={data.fingerprint}, but this version of megdet draws {drawn}; "
                    "check out the version that drew the other, or launch again without data.fingerprint"
                )
            data.fingerprint = drawn
            _check_generated(data)
            return data
        facts = self.facts(data, masks=masks)
        if facts is None:
            if None in (data.train_images, data.val_images, data.num_classes):
                check_files(data)  # which says what is missing
            return data
        data.train_images, data.val_images, data.num_classes = facts.train_images, facts.val_images, facts.num_classes
        if not _is_known_by_name(data):
            data.fingerprint, data.masks_fingerprint = facts.fingerprint, facts.masks_fingerprint
        return data

    def facts(self, data: DataSettings, *, masks: bool = False) -> DataFacts | None:
        """What the files say; None where they are not there, and of generated ones, which are what was asked.

        Raises:
            UserError: where the data is not what it should be.
        """
        if data.name in GENERATED or files_of(data).missing():
            return None
        # Imported here: it brings numpy, which a plan without the files does without.
        from megdet.data.data_set import check_against, read_files

        files = files_of(data)
        key = (files, data.max_bad_images, masks)
        if key not in self._read:
            try:
                self._read[key] = read_files(files, max_bad_images=data.max_bad_images, masks=masks).facts
            except UserError as error:
                self._read[key] = error
        found = self._read[key]
        if isinstance(found, UserError):
            raise found
        check_against(data, files, found)
        return found

    @property
    def repairs(self) -> list[str]:
        """What was repaired in all that was read, a sentence each."""
        read = [found for found in self._read.values() if not isinstance(found, UserError)]
        return list(dict.fromkeys(repair for facts in read for repair in facts.repairs))


def _check_generated(data: DataSettings) -> None:
    """Raises UserError for a set that is not drawn so."""
    if data.has_own_places:
        raise UserError(
            f"data.train, data.val and data.val_fraction are for files of your own, and data={data.name} is drawn; use "
            "data=custom with them"
        )
    if data.num_classes != CLASSES[data.name]:
        raise UserError(
            f"data.num_classes={data.num_classes}: data={data.name} has {CLASSES[data.name]} classes; use "
            f"data.num_classes={CLASSES[data.name]}"
        )
    if data.min_size < LEAST_SIZE:
        raise UserError(
            f"data.min_size={data.min_size}: images of data={data.name} are drawn with {LEAST_SIZE} pixels at least; "
            f"use data.min_size={LEAST_SIZE} or more"
        )


def _with_absolute_places(data: DataSettings) -> DataSettings:
    data = copy.deepcopy(data)
    data.root = os.path.realpath(expanded(data.root))
    for split in (data.train, data.val):
        for name in ("annotations", "images"):
            place = getattr(split, name)
            if place is not None:
                setattr(split, name, str(data.root / expanded(place)))
    return data


def _is_known_by_name(data: DataSettings) -> bool:
    counts = (data.train_images, data.val_images, data.num_classes)
    return data.name == COCO and counts == COCO_COUNTS and not data.has_own_places
