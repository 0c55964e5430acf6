"""Ways in which annotation files go wrong, each drawn from a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Content = dict[str, Any]
Mutation = Callable[[random.Random, Content], Any]

ODD = [
    None, True, False, 0, 1, -1, 2, 1.0, 7.0, 0.5, -0.0, 1e300, 2**53, 2**53 + 1, 2**63, 10**30, -(2**60), "",
    " ", "1", "12",
    "012", "1.5", "-3", "1e3", "+1", " 1", "1_0", ".5", "5.", "0x10", "nan", "inf", "one", "true", "no", [],
    [1], {}, {"id": 1},
    "٣", [[1, 2], [3]], "a\\b.jpg", "\u0000", "x" * 300,
]  # fmt: skip
"""Values that stand where they should not, or nearly as they should."""

BOXES = [
    [], [1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 0], [5, 5, 0, 3], [5, 5, 3, 0.001], [5, 5, -3, 4], [5, 5, 3, -0.001],
    [-5, -5, 20, 20], [-0.5, 0, 20, 20], [50, 30, 400, 400], [1000, 1000, 5, 5], [-50, -50, 10, 10], [1e308,
    1e308, 1e308, 1],
    [-1e308, 0, 1.7e308, 9], ["5", "6", "7.5", "8"], ["5", "6", "x", "8"], ["5", 6, "7e0", 8], [True, 1, 5, 5],
    [None, 1, 5, 5],
    [[1], 2, 3, 4], {"x": 1, "y": 2, "w": 3, "h": 4}, "1,2,3,4", [1, 2, 3, 10**400], [3, 3, 9, "1e999"], [0.2,
    0.2, 0.3, 0.3],
]  # fmt: skip

NAMES = [
    "../a.jpg", "/etc/passwd", "a/../../b.jpg", "./a.jpg", "sub\\a.jpg", "..\\a.jpg", "\\a.jpg", "sub//a.jpg",
    "", ".", "a\0.jpg",
    "ü.jpg", "sub/a.jpg", 'a "segmentation": [1].jpg', "a" * 300,
]  # fmt: skip

SEGMENTATIONS = [
    [], [[]], None, "x", [[1, 2, "three"]], {"size": [1, 2], "counts": "}{]["}, {"counts": {"a": {"b": [1]}}},
    [[[1]]], 1e300,
    [[1, 2, 3, 4, 5, 6], {"a": "]"}], 'quoted " text }',
]  # fmt: skip


def mutated(seed: int, original: Content) -> tuple[str, bytes]:
    """What was done, and the file's content: one to three mutations of the lists, sometimes one of the bytes."""
    rng = random.Random(seed)
    content = copy.deepcopy(original)
    chosen = [rng.choice(MUTATIONS) for _ in range(rng.choice([1, 1, 1, 1, 2, 2, 3]))]
    done = []
    for mutation in chosen:
        try:
            replaced = mutation(rng, content)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
            continue  # an earlier one has left nothing to mutate
        done.append(mutation.__name__)
        if replaced is not None:
            content = replaced
    text = json.dumps(content, allow_nan=True, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 1]))
    raw = text.encode("utf-8", errors="replace")
    if rng.random() < 0.25:
        damage = rng.choice(DAMAGES)
        done.append(damage.__name__)
        raw = damage(rng, raw)
    return " + ".join(done), raw


def _entry(rng: random.Random, content: Content, of: str) -> dict[str, Any]:
    entry: dict[str, Any] = rng.choice(content[of])
    return entry


def _values(of: str, *keys: str) -> list[Mutation]:
    """Of each key: another value in one entry, in several, in all; and none."""

    def change(key: str) -> Mutation:
        def mutation(rng: random.Random, content: Content) -> None:
            _entry(rng, content, of)[key] = rng.choice(ODD)

        mutation.__name__ = f"odd_{of}_{key}"
        return mutation

    def change_many(key: str) -> Mutation:
        def mutation(rng: random.Random, content: Content) -> None:
            value, share = rng.choice(ODD), rng.choice([0.2, 1.0])
            for entry in content[of]:
                if rng.random() < share:
                    entry[key] = value

        mutation.__name__ = f"many_odd_{of}_{key}"
        return mutation

    def remove(key: str) -> Mutation:
        def mutation(rng: random.Random, content: Content) -> None:
            if rng.random() < 0.3:
                for entry in content[of]:
                    entry.pop(key)
            else:
                _entry(rng, content, of).pop(key)

        mutation.__name__ = f"no_{of}_{key}"
        return mutation

    def retype(key: str) -> Mutation:
        def mutation(rng: random.Random, content: Content) -> None:
            kind = rng.choice([str, float])
            for entry in content[of] if rng.random() < 0.5 else [_entry(rng, content, of)]:
                entry[key] = kind(entry[key])

        mutation.__name__ = f"retyped_{of}_{key}"
        return mutation

    return [make(key) for key in keys for make in (change, change_many, remove, retype)]


def box(rng: random.Random, content: Content) -> None:
    _entry(rng, content, "annotations")["bbox"] = rng.choice(BOXES)


def boxes_of_all(rng: random.Random, content: Content) -> None:
    kind = rng.choice(["corners", "fractions", "negative", "swapped", "moved", "text"])
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = {
            "corners": [x, y, x + w, y + h],
            "fractions": [x / 1000, y / 1000, w / 1000, h / 1000],
            "negative": [x + w, y + h, -w, -h],
            "swapped": [y, x, h, w],
            "moved": [x + 5000, y, w, h],
            "text": [str(x), str(y), str(w), str(h)],
        }[kind]


def sizes_exchanged(rng: random.Random, content: Content) -> None:
    for entry in content["images"]:
        entry["width"], entry["height"] = entry["height"], entry["width"]


def file_name(rng: random.Random, content: Content) -> None:
    _entry(rng, content, "images")["file_name"] = rng.choice(NAMES)


def segmentation(rng: random.Random, content: Content) -> None:
    value = rng.choice(SEGMENTATIONS)
    for entry in content["annotations"]:
        entry["segmentation"] = value


def unneeded(rng: random.Random, content: Content) -> None:
    content["info"] = rng.choice([{"year": ""}, {"year": "2023"}, None, [], {"categories": [], "images": 3}, 1e300])
    content["licenses"] = rng.choice(ODD)
    for name in ("images", "annotations", "categories"):
        _entry(rng, content, name)[rng.choice(["keypoints", "caption", "license", "date_captured"])] = rng.choice(ODD)


def repeat_id(rng: random.Random, content: Content) -> None:
    of = rng.choice(["images", "categories", "annotations"])
    first, second = rng.sample(content[of], 2)
    second["id"] = first["id"]


def repeat_name(rng: random.Random, content: Content) -> None:
    of, key = rng.choice([("images", "file_name"), ("categories", "name")])
    first, second = rng.sample(content[of], 2)
    second[key] = first[key]


def repeat_entry(rng: random.Random, content: Content) -> None:
    entries = content[rng.choice(["images", "categories", "annotations"])]
    entries.append(copy.deepcopy(rng.choice(entries)))


def restarting_ids(rng: random.Random, content: Content) -> None:
    seen: dict[Any, int] = {}
    for entry in content["annotations"]:
        entry["id"] = seen[str(entry["image_id"])] = seen.get(str(entry["image_id"]), 0) + 1


def unknown_reference(rng: random.Random, content: Content) -> None:
    _entry(rng, content, "annotations")[rng.choice(["image_id", "category_id"])] = rng.choice(
        [0, 77777, 2**53, "77777"]
    )


def drop_entry(rng: random.Random, content: Content) -> None:
    entries = content[rng.choice(["images", "categories", "annotations"])]
    entries.pop(rng.randrange(len(entries)))


def replace_entry(rng: random.Random, content: Content) -> None:
    entries = content[rng.choice(["images", "categories", "annotations"])]
    entries[rng.randrange(len(entries))] = rng.choice(ODD)


def list_gone(rng: random.Random, content: Content) -> None:
    name = rng.choice(["images", "categories", "annotations"])
    if rng.random() < 0.5:
        del content[name]
    else:
        content[name] = rng.choice([*ODD, {}, [], [[]], {"0": content[name]}])


def shuffle(rng: random.Random, content: Content) -> None:
    rng.shuffle(content[rng.choice(["images", "categories", "annotations"])])


def nested(rng: random.Random, content: Content) -> Any:
    return rng.choice([{"dataset": content}, [content], {"images": {"images": content["images"]}}, None, 3])


def all_ids_as_text(rng: random.Random, content: Content) -> None:
    for name in ("images", "categories", "annotations"):
        for entry in content[name]:
            for key in ("id", "image_id", "category_id"):
                if key in entry:
                    entry[key] = str(entry[key])


def not_a_number(rng: random.Random, content: Content) -> None:
    value = rng.choice([float("nan"), float("inf"), float("-inf")])
    entry = _entry(rng, content, "annotations")
    where = rng.choice(["bbox", "area", "segmentation", "info"])
    if where == "bbox":
        entry["bbox"] = [1, 2, value, 4]
    elif where == "info":
        content["info"] = value
    else:
        entry[where] = value


MUTATIONS: list[Mutation] = [
    *_values("images", "id", "file_name", "width", "height"),
    *_values("categories", "id", "name"),
    *_values("annotations", "id", "image_id", "category_id", "bbox", "area", "iscrowd"),
    *[box] * 8, *[boxes_of_all] * 3, sizes_exchanged, *[file_name] * 4, *[segmentation] * 2, *[unneeded] * 2,
    *[repeat_id] * 3,
    *[repeat_name] * 2, *[repeat_entry] * 2, restarting_ids, *[unknown_reference] * 2, *[drop_entry] * 2,
    *[replace_entry] * 2,
    *[list_gone] * 2, shuffle, nested, *[all_ids_as_text] * 2, *[not_a_number] * 2,
]  # fmt: skip


def truncated(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def flipped(rng: random.Random, raw: bytes) -> bytes:
    damaged = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def inserted(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    piece = rng.choice([b",", b'"', b"}", b"]", b"0", b"-", b"\n{}", b"NaN", b"\x00", b"\xff", b"// note\n", b"1e999"])
    return raw[:place] + piece + raw[place:]


def byte_order_mark(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice([b"\xef\xbb\xbf" + raw, raw.decode(errors="replace").encode("utf-16")])


def json_lines(rng: random.Random, raw: bytes) -> bytes:
    return raw + b"\n" + raw


def spaced(rng: random.Random, raw: bytes) -> bytes:
    return rng.choice([b" \n\t" + raw + b"\r\n", raw.replace(b":", b" :"), raw.replace(b",", b"\n,")])


def repeated_list(rng: random.Random, raw: bytes) -> bytes:
    name = rng.choice([b"images", b"annotations", b"categories", b"info"])
    return b'{"%s": [],' % name + raw.lstrip().removeprefix(b"{")


def repeated_key(rng: random.Random, raw: bytes) -> bytes:
    return raw.replace(b'"bbox"', b'"bbox": [1, 1, 2, 2], "bbox"', rng.choice([1, -1]))


DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    truncated, flipped, flipped, flipped, inserted, inserted, byte_order_mark, json_lines, spaced,
    repeated_list, repeated_key,
]  # fmt: skip
