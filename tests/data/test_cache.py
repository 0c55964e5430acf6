"""What is kept of large files: used while they are as they were, never after."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from megdet.data import annotation_cache, cache, image_folder
from megdet.data.annotation_cache import load_annotations
from megdet.data.annotations import read_annotations
from megdet.data.image_folder import ABSENT, file_sizes
from tests.data.test_annotations import CONTENT, changed


@pytest.fixture(autouse=True)
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEGDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(annotation_cache, "KEPT_FROM_BYTES", 0)
    monkeypatch.setattr(image_folder, "KEPT_FROM_FILES", 0)
    return tmp_path / "cache"


def settle(path: Path, *, age_s: float = 10) -> Path:
    """Let a file or folder have changed last some time ago."""
    then = time.time_ns() - int(age_s * 1e9)
    os.utime(path, ns=(then, then))
    return path


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return settle(path)


def test_a_file_is_read_once_and_is_the_same_from_the_cache(
    tmp_path: Path, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json", changed(("annotations", 1, "bbox"), [-5, 30, 20, 30]))
    first = load_annotations(path)
    assert len(list(kept_in.iterdir())) == 1
    monkeypatch.setattr(annotation_cache, "read_annotations", lambda path, masks: pytest.fail("read again"))
    again = load_annotations(path)
    for name, value in vars(first).items():
        other = getattr(again, name)
        if isinstance(value, np.ndarray):
            assert (value.dtype, value.tolist()) == (other.dtype, other.tolist()), name
        else:
            assert value == other, name
    assert len(again.repairs) == 1


@pytest.mark.parametrize("what", ["time", "size", "version", "damage", "place"])
def test_a_file_that_is_no_longer_the_same_is_read_again(
    tmp_path: Path, kept_in: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = write(tmp_path / "a.json", CONTENT)
    load_annotations(path)
    other = changed(("annotations", 0, "bbox"), [5, 6, 10, 25])
    if what == "time":
        settle(write(path, other), age_s=20)
    elif what == "size":
        status = path.stat()
        path.write_text(json.dumps(other, indent=1))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif what == "version":
        monkeypatch.setattr(annotation_cache, "READER_VERSION", 10**6)
        monkeypatch.setattr(annotation_cache, "read_annotations", lambda _, masks: read_annotations(other_file))
        other_file = write(tmp_path / "other.json", other)
    elif what == "damage":
        [entry] = kept_in.iterdir()
        entry.write_bytes(entry.read_bytes()[:-40])
        monkeypatch.setattr(annotation_cache, "read_annotations", lambda _, masks: read_annotations(other_file))
        other_file = write(tmp_path / "other.json", other)
    else:
        [entry] = kept_in.iterdir()
        path = write(tmp_path / "b.json", other)
        os.utime(path, ns=(entry.stat().st_mtime_ns,) * 2)
    assert load_annotations(path).boxes[0].tolist() == [5, 6, 10, 25]


def test_a_file_that_changed_just_now_is_not_kept(tmp_path: Path, kept_in: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT))
    load_annotations(path)
    assert not kept_in.exists()


def test_where_nothing_can_be_kept_files_are_read_all_the_same(
    tmp_path: Path, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json", CONTENT)
    kept_in.write_text("a file where the cache would be")
    assert len(load_annotations(path).boxes) == 5
    monkeypatch.setenv("MEGDET_CACHE", "")
    assert len(load_annotations(path).boxes) == 5


def test_by_default_it_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEGDET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_annotations(write(tmp_path / "a.json", CONTENT))
    assert len(list((tmp_path / "xdg" / "megdet").glob("annotations-*.npz"))) == 1


def test_texts_come_back_as_they_were() -> None:
    for texts in ([""], ["a", "", "ü\udc80"], ["", "x"]):
        assert cache.parted(cache.joined(texts)) == tuple(texts)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"12345")
    (folder / "sub" / "b.jpg").write_bytes(b"1")
    (folder / "sub" / "c.jpg").symlink_to(folder / "a.jpg")
    (folder / "dead.jpg").symlink_to(folder / "nowhere")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    for path in (folder, folder / "sub"):
        settle(path)
    return folder


NAMES = ["sub/b.jpg", "a.jpg", "sub/c.jpg", "dead.jpg", "folder.jpg", "pipe.jpg", "none.jpg", "other/a.jpg"]
SIZES = [1, 5, 5, *[ABSENT] * 5]


def test_file_sizes_are_of_files_alone(pictures: Path) -> None:
    assert file_sizes(pictures, NAMES).tolist() == SIZES
    assert file_sizes(pictures / "nowhere", NAMES).tolist() == [ABSENT] * len(NAMES)
    assert file_sizes(pictures, []).tolist() == []


def test_a_folder_is_listed_once_until_a_file_comes_goes_or_gets_another_name(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = NAMES[:-1]
    file_sizes(pictures, names)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail("listed again"))
    assert file_sizes(pictures, names).tolist() == SIZES[:-1]
    monkeypatch.setattr(os, "scandir", scandir)
    (pictures / "none.jpg").write_bytes(b"1234567")
    (pictures / "sub" / "b.jpg").unlink()
    assert file_sizes(pictures, names).tolist() == [ABSENT, 5, 5, ABSENT, ABSENT, ABSENT, 7]
