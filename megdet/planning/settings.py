"""What decides a run's result, flat: the params of MLflow and the key by which runs are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

SEMANTIC = ("batch", "bn_size", "precision", "lr", "optimizer", "schedule", "model", "data", "eval")
"""The parts of a plan's config that decide what is learned (with the seed, which is kept apart)."""
PLACES = ("data.root", "data.train", "data.val", "data.workers")
"""Within them, what says only where and how."""


def semantic_settings(plan: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a plan.json, named as in YAML: `batch`, `lr.scale`, `model` (its name), `model.backbone`.

    Read from plain JSON, so that plans of other versions of megdet stay readable. Values are as text, equal
    for equal meanings; what is not set (None) is left out.
    """
    config = plan["config"]
    return dict(_flat({key: config[key] for key in SEMANTIC if key in config}, ""))


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        name = prefix + key
        if name in PLACES or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name.removesuffix(".name"), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(sorted(set(value)))  # names without an order, such as model.bn_in
    if isinstance(value, list):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
