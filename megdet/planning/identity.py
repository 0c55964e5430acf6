"""The identity of an experiment: the settings that decide what is learned, and the ids and names made from them.

One list says which settings those are. Ids are hashes over them; MLflow's params and the analysis see them flat, as
text. Both read the plain values of a plan.json, so that plans of other versions stay readable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from megdet.config.schema import Config
from megdet.errors import UserError

SEMANTIC = ("batch", "bn_size", "precision", "lr", "optimizer", "schedule", "model", "data", "eval")
"""The parts of a config that decide what is learned, with the seed, which tells the runs of an experiment apart."""
RECIPE = 2
"""What all runs of this version learn by, besides their settings; part of every id.

To be raised by whoever changes what is learned under the same settings (the numbers themselves, not their last bits):
finished runs of before are then never taken for new ones. 2: exact BN statistics, anchors
of fixed strides, images grouped by aspect ratio, 16 of frozen or small BN batches padded alike.
"""
PLACES = ("data.root", "data.train", "data.val", "data.workers", "model.init_from")
"""Within them, what says only where and how."""
LATER: dict[str, Any] = {
    "model.backbone.atrous": False,
    "model.roi_heads.sampler": "balanced",
    "model.mask.layers": 4,
    "model.mask.resolution": 14,
    "optimizer.agvm.alpha": 0.97,
}
"""Settings that came when there were runs already, with the value at which nothing changes: there they are left out,
and ids stay what they were."""
UNORDERED = ("model.bn_in",)
"""Lists whose order means nothing."""


WITH_OLD_NAMES = (
    "it was planned by a megdet of before settings were nested by component (model.rpn.nms was model.rpn_nms); "
    "check out the commit it names to work with it, or launch the experiment again"
)
"""Why a run from before has no place here: its settings have other names, and its id would be another."""


def refuse_old_names(config: Mapping[str, Any]) -> None:
    """Raises UserError for the config of a plan from before settings were nested by component."""
    model = config.get("model")
    if isinstance(model, Mapping) and not isinstance(model.get("backbone", {}), Mapping):
        raise UserError(WITH_OLD_NAMES)


def semantics_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides what is learned, nested as in YAML, from the plain values of a config.

    Equal for equal meanings: numbers are floats, and what is not set (None, or a part of which nothing is) is left
    out, as is what `LATER` names, so that later settings do not change old ids. Raises UserError for a plan from before
    settings were nested by component.
    """
    refuse_old_names(config)
    return {key: _canonical(config[key], key) for key in SEMANTIC if key in config}


def experiment_id_of(config: Config) -> str:
    """12 hex digits over the recipe and the semantics: the key of a table's row."""
    return _digest(_known_by_content(semantics_of(asdict(config))))[:12]


def run_id_of(config: Config) -> str:
    """The name and 8 hex digits over the recipe, the semantics and the seed: the name of the run's folder."""
    semantics = _known_by_content(semantics_of(asdict(config)))
    return f"{name_of(config)}-{_digest({**semantics, 'seed': float(config.seed)})[:8]}"


def settings_but_schedule(config: Config) -> dict[str, Any]:
    """What decides what is learned in a step, apart from its learning rate: all but the schedule, with the seed.

    Runs that agree in it and in the learning rates of their first steps have made the same steps.
    """
    semantics = _known_by_content(semantics_of(asdict(config)))
    return {**{key: value for key, value in semantics.items() if key != "schedule"}, "seed": config.seed}


def _known_by_content(semantics: dict[str, Any]) -> dict[str, Any]:
    """Without the path of a weights file whose content is known: a file that moved makes no other run."""
    backbone = semantics["model"]["backbone"]
    if "weights_sha256" in backbone:
        del backbone["weights"]
    return semantics


def name_of(config: Config) -> str:
    """The readable part of a run's name."""
    scale = "" if config.lr.scale == 1 else f"-lr{config.lr.scale:g}x"
    return f"b{config.batch}-bn{config.bn_size}-{config.schedule.name}{scale}-s{config.seed}"


def recipe_of(plan: Mapping[str, Any]) -> int:
    """The recipe of the megdet that made a plan.json; 1 where that did not say."""
    recipe = plan.get("recipe", 1)
    return recipe if isinstance(recipe, int) else 1


def plan_sha256_of(plan: Mapping[str, Any]) -> str:
    """12 hex digits over what a plan.json says is done: all that decides the result, layout and steps.

    Ties a plan that was printed, the run of it and the cells of a table: code, notes and bookkeeping do not count.
    """
    done = {key: plan[key] for key in ("run_id", "layout", "schedule")}
    return _digest({**done, "semantics": semantics_of(plan["config"]), "seed": plan["config"]["seed"]})[:12]


def semantic_settings(plan: Mapping[str, Any]) -> dict[str, str]:
    """Recipe and semantics of a plan.json as text by key: `recipe`, and as `settings_in` has them.

    Raises UserError as `semantics_of` does.
    """
    return {"recipe": str(recipe_of(plan)), **settings_in(plan["config"])}


def settings_in(config: Mapping[str, Any]) -> dict[str, str]:
    """The semantics of a config as text by key: `batch`, `lr.scale`, `model` (its name), `model.rpn.nms`.

    Equal texts for equal meanings. Raises UserError as `semantics_of` does.
    """
    return dict(_flat(semantics_of(config), ""))


def _canonical(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        is_own_parts = key.endswith(".custom")  # there, None is an argument like any other
        return {
            name: _canonical(entry, f"{key}.{name}")
            for name, entry in value.items()
            if is_own_parts or not _says_nothing(entry, f"{key}.{name}")
        }
    if isinstance(value, list | tuple):
        return sorted(set(value)) if key in UNORDERED else [_canonical(entry, key) for entry in value]
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53  # larger: a damaged plan
    return float(value) if is_number else value


def _says_nothing(value: Any, key: str) -> bool:
    if value is None or key in PLACES or (key in LATER and value == LATER[key]):
        return True
    return isinstance(value, Mapping) and all(_says_nothing(entry, f"{key}.{name}") for name, entry in value.items())


def _digest(semantics: Mapping[str, Any]) -> str:
    text = json.dumps({"recipe": RECIPE, **semantics}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = prefix + key
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name.removesuffix(".name"), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
