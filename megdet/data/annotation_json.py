"""The three lists of a COCO annotation file, with only the keys that boxes need, and segmentations where asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from megdet.data.regular_file import open_regular
from megdet.errors import UserError

T = TypeVar("T")
MISSING = msgspec.UNSET
"""The value of a key that an entry does not have."""


class ImageEntry(msgspec.Struct, gc=False):
    """An image's entry; values have whatever type the file gives them."""

    id: Any = MISSING
    file_name: Any = MISSING
    width: Any = MISSING
    height: Any = MISSING


class CategoryEntry(msgspec.Struct, gc=False):
    id: Any = MISSING
    name: Any = MISSING


class AnnotationEntry(msgspec.Struct, gc=False):
    id: Any = MISSING
    image_id: Any = MISSING
    category_id: Any = MISSING
    bbox: Any = MISSING
    area: Any = MISSING
    iscrowd: Any = MISSING


class MaskedEntry(AnnotationEntry, gc=False):
    """An annotation with its mask."""

    segmentation: msgspec.Raw | msgspec.UnsetType = MISSING
    """As written."""


class ImageList(msgspec.Struct):
    """Of a file that may have no annotations, as COCO has them for its test images."""

    images: list[ImageEntry]


class AnnotationLists(msgspec.Struct):
    images: list[ImageEntry]
    categories: list[CategoryEntry]
    annotations: list[AnnotationEntry]


class MaskedLists(msgspec.Struct):
    images: list[ImageEntry]
    categories: list[CategoryEntry]
    annotations: list[MaskedEntry]


_NOT_JSON = {
    b"\xef\xbb\xbf": "begins with a byte order mark; save it as UTF-8 without one",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "is compressed (gzip); unpack it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"version https://git-lfs": "is a pointer of Git LFS; fetch the file itself with `git lfs pull`",
}
"""What files begin with that are something else, and what to do."""


def read_lists(path: Path, *, masks: bool = False) -> AnnotationLists | MaskedLists:
    """The lists of an annotation file. Raises UserError where it is not one JSON object that has them.

    Everything else in the file must be valid JSON and is skipped. A key that an entry has twice counts as last
    written, as all readers of JSON have it; a list that the file has twice is refused.
    """
    content = _bytes_of(path)
    try:
        lists = _decoded(content, MaskedLists) if masks else _decoded(content, AnnotationLists)
        _refuse_repeated_lists(path, content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} {_fault(content, error)}") from error
    return lists


def read_image_list(path: Path) -> list[ImageEntry]:
    """The list `images` of a file, whatever else it has. Raises UserError where there is none."""
    content = _bytes_of(path)
    try:
        return _decoded(content, ImageList).images
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path} cannot be used: it needs a list `images`, as COCO's files have it ({error})"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} {_fault(content, error)}") from error


def _decoded(content: bytes, lists: type[T]) -> T:
    if not content.isascii():
        content.decode()  # what is skipped would not be looked at
    return msgspec.json.decode(content, type=lists)


def _bytes_of(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; check the path of the annotation file (data.root with "
            "data.train.annotations and data.val.annotations, or --annotations)"
        ) from error
    if not content.strip():
        raise UserError(f"{path} is empty; copy, fetch or generate it again")
    for beginning, fault in _NOT_JSON.items():
        if content.startswith(beginning):
            raise UserError(f"{path} {fault}")
    return content


def _refuse_repeated_lists(path: Path, content: bytes) -> None:
    names = AnnotationLists.__struct_fields__
    if all(content.count(f'"{name}"'.encode()) == 1 for name in names):
        return
    # The name may stand elsewhere too, so the keys of the outermost object have to be looked at: the last ones seen.
    seen: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen[:] = [key for key, _ in pairs]

    json.loads(content, object_pairs_hook=note)
    repeated = [name for name in names if seen.count(name) > 1]
    if repeated:
        raise UserError(f"{path} has the list `{repeated[0]}` more than once; join them into one")


def _fault(content: bytes, error: Exception) -> str:
    """The message for content without annotations: what is wrong, where, and what to do."""
    if isinstance(error, msgspec.ValidationError):
        return _structural_fault(content, error)
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be an annotation file"
    place = re.search(r"\(byte (\d+)\)", str(error))
    if not place:  # "Input data was truncated"
        return f"is not valid JSON ({error}): its end is missing; copy, fetch or generate it again"
    byte = int(place[1])
    line = content.count(b"\n", 0, byte) + 1
    near = content[max(0, byte - 20) : byte + 20].decode(errors="replace")
    where = f"line {line}, near {json.dumps(near, ensure_ascii=False)}"
    if re.match(rb"-?(NaN|Inf)", content[max(0, byte - 1) : byte + 9].lstrip(b" :,[")):
        return f"has NaN or Infinity ({where}), which JSON does not know; write numbers or null"
    if "trailing characters" in str(error) and content[byte - 1 : byte + 1].lstrip()[:1] in (b"{", b"["):
        return f"holds several JSON values one after the other ({where}), JSON lines perhaps; it has to be one object"
    return f"is not valid JSON ({where}: {str(error).partition(': ')[2] or error}); copy, fetch or generate it again"


def _structural_fault(content: bytes, error: msgspec.ValidationError) -> str:
    needs = (
        "cannot be used: a COCO annotation file is one object with the lists `images`, `annotations` and `categories`"
    )
    try:
        top = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return f"{needs}; this one has no object at the top"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as worse:
        return _fault(content, worse)
    missing = [name for name in AnnotationLists.__struct_fields__ if name not in top]
    if not missing:
        return f"{needs}; in this one {error}"
    keys = ", ".join(json.dumps(key)[:40] for key in list(top)[:8]) or "nothing"
    return f"{needs}; this one lacks {', '.join(missing)} and has {keys}"
