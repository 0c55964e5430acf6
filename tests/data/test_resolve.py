"""From the data asked for to the data that a plan counts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megdet.data import data_set
from megdet.data.data_set import read_data
from megdet.data.generated import generate, painter_of
from megdet.data.known import CLASSES, GENERATED
from megdet.data.resolve import DataResolver
from megdet.data.settings import DataSettings, SplitSettings
from megdet.errors import UserError
from tests.data.own_set import write_own_set

Resolve = Callable[[DataSettings], DataSettings]


@pytest.fixture
def resolve() -> Resolve:
    return DataResolver().resolve


def test_own_data_gets_places_counts_and_a_fingerprint(
    tmp_path: Path, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(write_own_set(tmp_path / "set"), root="set")
    monkeypatch.chdir(tmp_path)
    found = resolve(asked)
    assert (found.train_images, found.val_images, found.num_classes) == (8, 4, 2)
    assert found.fingerprint == read_data(asked).facts.fingerprint
    assert found.root == str(tmp_path / "set") and found.train.images == str(tmp_path / "set" / "pictures")
    assert asked.train_images is None and asked.root == "set", "what was asked stays"
    assert resolve(found) == found


def test_coco_and_generated_sets_are_known_without_their_files(tmp_path: Path, resolve: Resolve) -> None:
    coco = resolve(DataSettings(root=str(tmp_path)))
    assert coco == DataSettings(root=str(tmp_path))
    shapes = DataSettings(name="shapes", root=str(tmp_path), train_images=9, val_images=3, num_classes=6)
    assert resolve(shapes) == replace(shapes, fingerprint="shapes-1")
    with pytest.raises(UserError, match=r"data\.fingerprint=shapes-0, but this version of megdet draws shapes-1"):
        resolve(replace(shapes, fingerprint="shapes-0"))
    with pytest.raises(UserError, match=r"data\.num_classes=3: data=shapes has 6 classes; use data\.num_classes=6"):
        resolve(replace(shapes, num_classes=3))
    for own in ({"val_fraction": 0.5}, {"train": SplitSettings(annotations="mine.json")}):
        with pytest.raises(UserError, match="are for files of your own, and data=shapes is drawn; use data=custom"):
            resolve(replace(shapes, **own))
    with pytest.raises(UserError, match=r"data\.min_size=47: .* use data\.min_size=48 or more"):
        resolve(replace(shapes, min_size=47))


def test_what_is_known_of_generated_sets_is_what_their_painters_draw() -> None:
    assert {name: len(painter_of(name).CATEGORIES) for name in GENERATED} == CLASSES


def test_own_data_can_be_planned_without_its_files_where_its_counts_are_given(tmp_path: Path, resolve: Resolve) -> None:
    asked = replace(write_own_set(tmp_path / "set"), root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere/labels/learn\.json.* is not there; give data\.train\.annotations"):
        resolve(asked)
    counted = replace(asked, train_images=8, val_images=4, num_classes=2, fingerprint="0123456789ab")
    found = resolve(counted)
    assert (found.train_images, found.fingerprint) == (8, "0123456789ab")


def test_a_set_in_cocos_layout_under_another_name_is_known_by_its_content(tmp_path: Path, resolve: Resolve) -> None:
    generate("shapes", tmp_path / "set", train_images=3, val_images=2, image_size=64, seed=0)
    found = resolve(DataSettings("mine", str(tmp_path / "set"), train_images=3, val_images=2, num_classes=6))
    assert found.fingerprint == read_data(found).facts.fingerprint
    with pytest.raises(UserError, match=r"Set data\.train_images=3, or use data=custom"):
        resolve(DataSettings("coco2017", str(tmp_path / "set")))
    part = resolve(DataSettings("coco2017", str(tmp_path / "set"), train_images=3, val_images=2, num_classes=6))
    assert part.fingerprint == found.fingerprint, "a part of COCO is not known by name"


def test_data_that_several_experiments_share_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = write_own_set(tmp_path / "good"), write_own_set(tmp_path / "bad")
    (tmp_path / "bad" / "labels" / "learn.json").write_text("{}")
    read, reads = data_set.read_files, []
    monkeypatch.setattr(data_set, "read_files", lambda *a, **more: (reads.append(1), read(*a, **more))[1])
    resolver = DataResolver()
    for _ in range(3):
        resolver.resolve(good)
        resolver.resolve(replace(good, flip=False))
        with pytest.raises(UserError, match="cannot be used"):
            resolver.resolve(bad)
    assert len(reads) == 2
    assert resolver.repairs == []


def test_what_was_repaired_is_told_once(tmp_path: Path) -> None:
    asked = write_own_set(tmp_path, change=lambda train, val: [a.pop("id") for a in train["annotations"]] and None)
    resolver = DataResolver()
    resolver.resolve(asked)
    resolver.resolve(replace(asked, max_bad_images=3))
    [repair] = resolver.repairs
    assert "numbered anew" in repair


def test_the_same_file_may_be_trained_on_and_validated(tmp_path: Path, resolve: Resolve) -> None:
    asked = write_own_set(tmp_path)
    found = resolve(replace(asked, val=SplitSettings("labels/learn.json", "pictures")))
    assert (found.train_images, found.val_images) == (8, 8)
