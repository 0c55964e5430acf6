"""`launch.py -m`: Hydra finds sweepers only under this package, so these are thin adapters to `megdet.sweep`.

Hydra imports this file at every start: everything that takes time is imported when a sweep begins.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class _PlanningSweeper(Sweeper):
    """What both have in common. A sweep of theirs ends the program."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config
        self._launcher_name = str(config.hydra.runtime.choices["hydra/launcher"])
        # Hydra does so itself for a single run; ranks, here and on a cluster, inherit it.
        os.environ.update({str(name): str(value) for name, value in config.hydra.job.env_set.items()})


class MegdetSweeper(_PlanningSweeper):
    """Composes every point of a sweep once and hands them over to be planned and run."""

    def sweep(self, arguments: list[str]) -> None:
        """`arguments` are the overrides of the command line, sweeps among them."""
        from megdet.config.experiments import compose_points
        from megdet.launchers.named import launcher_named
        from megdet.sweep.rows_table import check_table
        from megdet.sweep.seeds import run_with_seeds
        from megdet.sweep.sweep import run_points

        asked = compose_points(self._loader, self._config, arguments)
        check_table(asked[0].config.sweep.rows)
        launcher = launcher_named(self._launcher_name, asked[0].config)
        run = run_with_seeds if asked[0].config.sweep.seeds == "auto" else run_points
        sys.exit(run(asked, launcher=launcher, arguments=arguments, conclude=_write_results))


class OptunaSweeper(_PlanningSweeper):
    """Hands over a few points at a time, chosen by Optuna from the results of those before."""

    def __init__(self, sampler: DictConfig, **settings: Any) -> None:
        self._sampler = sampler
        self._settings = settings

    def sweep(self, arguments: list[str]) -> None:
        """`arguments` are the overrides of the command line; those that sweep say where to look."""
        from hydra.errors import HydraException
        from hydra.utils import instantiate

        from megdet.config.experiments import compose_trial
        from megdet.config.search_space import search_space
        from megdet.config.study import StudySettings
        from megdet.errors import UserError
        from megdet.launchers.named import launcher_named
        from megdet.sweep.study import check_installed, run_study

        plain = OmegaConf.to_container(OmegaConf.create(self._settings))
        settings = StudySettings(**plain)  # type: ignore[arg-type]
        settings.check("hydra.sweeper.")
        space = search_space(arguments, self._loader, ranges=settings.params)
        check_installed()
        try:
            sampler = instantiate(self._sampler)
        except HydraException as error:
            raise UserError(f"hydra/sweeper/sampler: {error}") from error
        hydra_own = [word for word in self._config.hydra.overrides.hydra if not word.startswith("hydra.mode=")]
        sys.exit(
            run_study(
                space,
                settings,
                sampler,
                compose=partial(compose_trial, self._loader, self._config),
                launcher_for=partial(launcher_named, self._launcher_name),
                arguments=[*hydra_own, *arguments],
                conclude=_write_results,
            )
        )


def _write_results(sweep_folder: Path) -> None:
    from megdet.analysis.sweep_results import write_results

    write_results(sweep_folder)
