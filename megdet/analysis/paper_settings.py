"""The settings of the paper's experiment: the schema's defaults, and its schedules from `conf/schedule/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache

import yaml  # type: ignore[import-untyped]

from megdet.analysis.paper import paper_table
from megdet.config.locations import CONF
from megdet.config.schema import Config
from megdet.planning.identity import semantic_settings

SCHEDULES = CONF / "schedule"


@cache
def paper_settings(schedule: str) -> Mapping[str, str]:
    """What the paper's runs with this schedule would have as `RunRecord.settings`.

    Without any `schedule.*` where the paper has no schedule of that name.
    """
    config = asdict(Config())
    del config["schedule"]
    if schedule in {row.key[2] for number in (2, 3) for row in paper_table(number).rows}:
        config["schedule"] = yaml.safe_load((SCHEDULES / f"{schedule}.yaml").read_text())
    return semantic_settings({"config": config})
