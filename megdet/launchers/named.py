"""The launcher that `hydra/launcher=` names."""

from __future__ import annotations

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.in_turn import InTurn
from megdet.launchers.interface import Launcher
from megdet.launchers.side_by_side import SideBySide

HERE = ("basic",)
"""Hydra's own word for no launcher in particular."""


def launcher_named(name: str, config: Config) -> Launcher:
    """Raises UserError for a launcher of another package: it would know nothing of plans."""
    if name in HERE:
        return InTurn()
    if name == "submitit_slurm":
        # Imported here: it brings submitit, which is a while to load.
        from megdet.launchers.slurm import SlurmLauncher

        return SlurmLauncher(wait=config.sweep.wait)
    if name == "submitit_local":
        return SideBySide()
    raise UserError(f"hydra/launcher={name}: use submitit_slurm, submitit_local, or leave it out to run here")
