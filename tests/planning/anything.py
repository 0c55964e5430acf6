"""Strategies for what a user may ask for: settings that make sense, nearly make sense, or make none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import strategies as st

from megdet.config.schema import Config
from megdet.settings.own_part import OwnPart
from megdet.settings.rules import RULE, Flag, Name, Number, OneOf, Whole


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of all settings that have a value, with their rules."""
    for field in fields(values):
        value = getattr(values, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.metadata[RULE]


RULES = dict(leaves(Config()))
GROUPS = {
    "experiment": ["demo", "tiny", "nope"], "model": ["tiny", "r50_fpn", "r51"], "data": ["shapes", "coco2017"],
    "schedule": ["normal", "long"], "cluster": ["local", "paper"], "optimizer": ["sgd", "adam"],
    "model/backbone": ["tiny", "resnet18", "x"], "sweep": ["none", "table3"],
}  # fmt: skip

NAMES = [
    "", " ", "a b", "../x", "/x", "$(touch x)", "`touch x`", "<script>alert(1)</script>", "=cmd()", "@x", "a\nb",
    "a\0b", "\x1b[31m", "Ünï", "\u202e", "'", '"', "a'b\"c", "\\", "%2F", "~nouser/x", "~", ".", "..", "-x", "x" * 300,
    "x" * 5000, "null", "true", "1", "auto", "none", "a,b", "${batch}", "???", "[", "{", "a=b", "\ud800", "｡", "mine",
    "a.b-c_d",
]  # fmt: skip
"""Of files, runs and parts."""
NUMBERS = [
    0, 1, -1, 2, 3, 7, 8, 16, 31, 32, 64, 128, 256, 1000, 99_991, 100_000, 100_001, 999_999, 2**31 - 1, 2**31,
    2**53 + 1, 2**63 - 1, 2**63, 10**400, -(10**400), 10**4000,
    0.0, -0.0, 0.1, 0.5, 0.99, 1.0, 1.5, 1e-300, 5e-324, 1e12, 1e13, 1e300, -1e300, float("inf"),
    float("-inf"), float("nan"),
]  # fmt: skip
BATCHES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1000, 2520, 99_991, 100_000]

scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(NAMES), st.text(max_size=8))
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
own_parts = st.fixed_dictionaries(
    {"_target_": st.sampled_from(["a.B", "my_package.nets:Net", "os.system", "a b", "", "a..b", 3])},
    optional={"width": scalars, "lambda": scalars, "a b": scalars, "names": anything},
)


def sensible(key: str) -> st.SearchStrategy[Any]:
    """Values that the rule of a setting takes, most of them."""
    rule = RULES[key]
    if key in ("batch", "bn_size", "gpus", "images_per_gpu"):
        return st.sampled_from(BATCHES) | st.integers(0, 4096) | st.just("auto")
    if isinstance(rule, Whole):
        return st.integers(rule.least, min(rule.most, rule.least + 5000)) | st.sampled_from([rule.least, rule.most])
    if isinstance(rule, Number):
        return st.floats(0, 100) | st.sampled_from([rule.least, rule.most, 1e-300, 1e-12])
    if isinstance(rule, OneOf):
        return st.sampled_from(rule.choices)
    if isinstance(rule, Flag):
        return st.booleans()
    if isinstance(rule, OwnPart):
        return own_parts
    if isinstance(rule, Name):
        return st.sampled_from(["mine", "normal", "tiny", "a.b-c_d", "x" * 64])
    if key == "schedule.factors":
        return st.lists(st.floats(1e-300, 1e12), max_size=40)
    if key == "schedule.milestones":
        return st.lists(st.integers(1, 60), max_size=40, unique=True).map(sorted)
    return scalars


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """The paper's experiment on some cluster, with some settings changed."""
    config = Config()
    config.cluster.nodes = draw(st.sampled_from([1, 2, 3, 16, 100_000]))
    config.cluster.gpus_per_node = draw(st.sampled_from([1, 2, 3, 8, 1024]))
    config.cluster.bn_across_nodes = draw(st.booleans())
    config.batch = draw(st.sampled_from(BATCHES))
    config.bn_size = draw(st.sampled_from([0, 1, 2, 8, 16, 32, config.batch]))
    if draw(st.integers(0, 3)) == 0:
        config.schedule.epochs = 60
        config.schedule.milestones = draw(sensible("schedule.milestones"))
        factors = st.sampled_from([0.1, 1e-300, 1e-12, 1e12]) | st.floats(1e-3, 1e3)
        count = len(config.schedule.milestones)
        config.schedule.factors = draw(st.lists(factors, min_size=count, max_size=count))
    for key in draw(st.lists(st.sampled_from(sorted(RULES)), max_size=6)):
        place: Any = config
        *path, name = key.split(".")
        for part in path:
            place = getattr(place, part)
        setattr(place, name, draw(sensible(key) if draw(st.integers(0, 3)) else anything))
    return config


def as_written(value: Any) -> str:
    """A value on the command line, near enough."""
    if isinstance(value, str):
        return value
    return "1" * 5000 if value == 10**4000 else json.dumps(value)  # more digits than Python reads


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """Words of a command line."""
    words = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 4)) == 0:
            group = draw(st.sampled_from(sorted(GROUPS)))
            value = draw(st.sampled_from(GROUPS[group]) | anything.map(as_written))
            words.append(f"{draw(st.sampled_from(['', '', '', '+', '++', '~']))}{group}={value}")
        else:
            key = draw(st.sampled_from(sorted(RULES)))
            value = as_written(draw(sensible(key) if draw(st.booleans()) else anything))
            quote = draw(st.sampled_from(["", "", "'", '"']))
            words.append(f"{draw(st.sampled_from(['', '', '', '', '+', '++', '~']))}{key}={quote}{value}{quote}")
    if draw(st.integers(0, 9)) == 0:
        words.append(draw(st.text(max_size=12)))
    return words
