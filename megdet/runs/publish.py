"""What a run recorded, as a folder to hand on: enough for tables, figures, claims and reports, without weights, logs
and pictures, and without what the run's plan says of the place where it ran.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megdet.config.cluster import ClusterSettings
from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.identity import PLACES
from megdet.runs.files import json_text, replace_file
from megdet.runs.run_files import BN_STUDY, CLASSES, GRADIENT_VARIANCE, JOURNAL, OWNER, PLAN, STATE, RunFiles
from megdet.runs.run_records import RunRecords

LAID_OUT_BY = ("name", "nodes", "gpus_per_node", "max_images_per_gpu", "gpu_memory_gb", "bn_across_nodes")
"""What a layout is planned from; all else of a cluster's settings is of interest to its own users alone."""


def publish(run: RunRecords, out: Path) -> Path:
    """Write what `run` recorded to its folder in `out`, which is made; what was published there before is replaced.

    Raises UserError where that folder is a run's own or the plan is damaged, and OSError where it cannot be written.
    """
    published = RunFiles(out / run.name)
    if (published.path / OWNER).exists():
        raise UserError(f"{published.path} is a run, which would lose its own plan; publish to another folder")
    texts = {PLAN: json_text(public_plan(run.read_plan()))}
    # The state last: with it the run has a result, and its journal must be whole by then.
    for name in (CLASSES, BN_STUDY, GRADIENT_VARIANCE, JOURNAL, STATE):
        if (run.path / name).exists():
            texts[name] = (run.path / name).read_text()
    published.path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        replace_file(published.path / name, text)
    return published.path


def public_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plan.json without accounts, commands and addresses; of files and folders only the names.

    It is a plan still: ids, layout and schedule are what its config gives.
    """
    values = copy.deepcopy(dict(plan))
    config = values["config"]
    config["runs_dir"] = Config.runs_dir
    config["tracking"]["uri"] = None
    asked = config["cluster"]
    config["cluster"] = {**asdict(ClusterSettings()), **{key: asked[key] for key in LAID_OUT_BY if key in asked}}
    for place in PLACES:
        *path, last = place.split(".")
        part = config
        for key in path:
            part = part[key]
        if last in part:
            part[last] = _names_of(part[last])
    return values


def _names_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _names_of(entry) for key, entry in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
