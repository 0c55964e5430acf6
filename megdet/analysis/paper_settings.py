"""The settings of the paper's experiment: the schema's defaults, and its schedules from `conf/schedule/`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import yaml  # type: ignore[import-untyped]

from megdet.analysis.asked import default_settings
from megdet.analysis.paper import paper_rows
from megdet.config.locations import CONF
from megdet.planning.identity import settings_in


@cache
def paper_settings(schedule: str) -> Mapping[str, str]:
    """What the paper's runs with this schedule would have set, as text.

    Leaves out `schedule.*` if the paper has no schedule of that name.
    """
    found = {key: text for key, text in default_settings().items() if not f"{key}.".startswith("schedule.")}
    if any(row.key[2] == schedule for row in paper_rows("table2", "table3")):
        content = yaml.safe_load((CONF / "schedule" / f"{schedule}.yaml").read_text())
        found |= settings_in({"schedule": content})
    return found
