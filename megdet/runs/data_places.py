"""Where a run's data lies: in plan.json relative to the run, where both are below the folder of the launch.

So a folder that was moved or copied trains, and is looked into, with the data in it. The id of a run does not depend on
where its data lies.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path

from megdet.config.schema import Config
from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder


def portable(plan: Plan, folder: RunFolder) -> Plan:
    """The plan as plan.json of `folder` has it, from one with absolute places; the current folder is the launch's."""
    here, root = Path.cwd().resolve(), Path(plan.config.data.root)
    if not (root.is_absolute() and root.is_relative_to(here) and folder.path.resolve().is_relative_to(here)):
        return plan
    config = copy.deepcopy(plan.config)
    config.data.root = os.path.relpath(root, folder.path.resolve())
    for split in (config.data.train, config.data.val):
        for name in ("annotations", "images"):
            place = getattr(split, name)
            if place is not None and Path(place).is_relative_to(here):
                setattr(split, name, os.path.relpath(place, root))
    return replace(plan, config=config)


def root_here(root: str, folder: Path) -> str:
    """`data.root` of the plan.json in a run's folder, as an absolute path.

    A relative one is where it is from the run. If nothing is there, for the runs alone were moved, it is below the
    nearest folder above the run's in which there is something by that name; so is the one of an
    older plan, which was relative to the folder of the launch.
    """
    if os.path.isabs(root):
        return root
    folder = folder.resolve()
    from_run = Path(os.path.normpath(folder / root))
    parts = [part for part in Path(root).parts if part != os.pardir]
    is_of_run = len(parts) < len(Path(root).parts)
    if is_of_run and (from_run.exists() or not parts):
        return str(from_run)
    named = [place.joinpath(*parts) for place in folder.parents]
    otherwise = from_run if is_of_run else named[min(1, len(named) - 1)]
    return str(next((place for place in named if place.exists()), otherwise))


def located(config: Config, folder: RunFolder) -> Config:
    """The config of plan.json in `folder` with the data where it is now."""
    return replace(config, data=replace(config.data, root=root_here(config.data.root, folder.path)))
