"""Ways in which the files of a run go wrong, for hypothesis: a value that cannot stand there, bytes that were lost."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ODD = st.sampled_from([
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e300, 2**53 + 1, 10**30, "", " ", "12", "nan", "../x", "running",
    "a\x1b[31m\nb", "ü" * 300, [], [1], [None], [[1]], {}, {"id": 1}, {"log": []},
])  # fmt: skip
PIECES = st.sampled_from([
    b",", b'"', b"}", b"]", b"{", b"0", b"-", b"\n", b"\n{}\n", b"NaN", b"Infinity", b"\x00", b"\xff", b"\xef\xbb\xbf",
    b"1e999", b"\n\n", b'"kind": "epoch", ', b"[" * 5000,
])  # fmt: skip


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a value in JSON, by keys and indexes."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*here, key)
        yield from places(item, (*here, key))


@st.composite
def other_values(draw: st.DrawFn, original: Any) -> Any:
    """The JSON value with one to three of its values replaced, removed or moved."""
    value = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(value))
        if not found or draw(st.integers(0, 20)) == 0:
            return copy.deepcopy(draw(ODD))
        *path, last = draw(st.sampled_from(found))
        place = value
        for key in path:
            place = place[key]
        match draw(st.sampled_from(("replace", "remove", "take", "add"))):
            case "replace":
                place[last] = copy.deepcopy(draw(ODD))
            case "remove":
                del place[last]
            case "take":  # the value of another place
                *other, of = draw(st.sampled_from(found))
                source = value
                for key in other:
                    source = source[key] if isinstance(source, dict | list) and key in _keys(source) else {}
                place[last] = copy.deepcopy(source[of]) if of in _keys(source) else None
            case "add" if isinstance(place, dict):
                place[draw(st.sampled_from(("what", "", "status", "step", "kind")))] = copy.deepcopy(draw(ODD))
    return value


def _keys(value: Any) -> Any:
    return value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()


@st.composite
def other_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes cut short, with some of them flipped, or with a piece in the middle."""
    place = draw(st.integers(0, max(0, len(original) - 1)))
    match draw(st.sampled_from(("cut", "flip", "insert", "lose", "zeros"))):
        case "cut":
            return original[:place]
        case "flip":
            damaged = bytearray(original)
            damaged[place : place + 1] = bytes([damaged[place] ^ 1 << draw(st.integers(0, 7))]) if damaged else b""
            return bytes(damaged)
        case "insert":
            return original[:place] + draw(PIECES) + original[place:]
        case "lose":
            return original[:place] + original[place + draw(st.integers(1, 200)) :]
        case _:  # a block that a crash of the system has left empty
            return original[:place] + bytes(len(original) - place)


@st.composite
def damaged_json(draw: st.DrawFn, original: bytes) -> bytes:
    """A JSON file that went wrong."""
    if draw(st.booleans()):
        return draw(other_bytes(original))
    return json.dumps(draw(other_values(json.loads(original))), indent=2).encode(errors="replace")


@st.composite
def damaged_lines(draw: st.DrawFn, original: bytes) -> bytes:
    """A file of JSON lines that went wrong."""
    lines = original.splitlines()
    match draw(st.sampled_from(("bytes", "value", "lost", "twice", "swapped"))):
        case "bytes":
            return draw(other_bytes(original))
        case "value":
            place = draw(st.integers(0, len(lines) - 1))
            lines[place] = json.dumps(draw(other_values(json.loads(lines[place])))).encode(errors="replace")
        case "lost":
            del lines[draw(st.integers(0, len(lines) - 1))]
        case "twice":
            place = draw(st.integers(0, len(lines) - 1))
            lines.insert(place, lines[place])
        case "swapped":
            place = draw(st.integers(1, len(lines) - 1))
            lines[place - 1], lines[place] = lines[place], lines[place - 1]
    return b"\n".join(lines) + b"\n"
