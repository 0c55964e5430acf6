"""`launch.py -m`: Hydra finds sweepers only under this package, so this is a thin adapter to `megdet.config.compose`.

Hydra imports this file at every start: everything that takes time is imported when a sweep begins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

TARGET = "hydra_plugins.megdet_sweeper.sweeper.MegdetSweeper"
ConfigStore.instance().store(group="hydra/sweeper", name="megdet", node={"_target_": TARGET}, provider="megdet")


class MegdetSweeper(Sweeper):
    """Composes every point of a sweep once and hands them over to be planned and run; ends the program."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    def sweep(self, arguments: list[str]) -> None:
        """`arguments` are the overrides of the command line, sweeps among them."""
        from megdet.config.compose import compose_points
        from megdet.launchers.named import launcher_named
        from megdet.sweep.sweep import run_points

        # Hydra does so itself for a single run; ranks, here and on a cluster, inherit it.
        os.environ.update({str(name): str(value) for name, value in self._config.hydra.job.env_set.items()})
        asked = compose_points(self._loader, self._config, arguments)
        launcher = launcher_named(self._config.hydra.runtime.choices["hydra/launcher"], asked[0].config)
        sys.exit(run_points(asked, launcher=launcher, arguments=arguments, conclude=_write_results))


def _write_results(sweep_folder: Path) -> None:
    from megdet.analysis.sweep_results import write_results

    write_results(sweep_folder)
