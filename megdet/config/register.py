"""What Hydra has to know before it composes: the schema, and megdet's launchers and sweepers by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from megdet.config.schema import Config
from megdet.config.study import StudySettings

LAUNCHERS = {
    "submitit_slurm": "hydra_plugins.megdet_launcher.launcher.SlurmLauncher",
    "local_parallel": "hydra_plugins.megdet_launcher.launcher.ParallelLauncher",
}
"""`hydra/launcher=`, beside Hydra's own `basic`."""
SWEEPERS: dict[str, dict[str, Any]] = {
    "megdet": {"_target_": "hydra_plugins.megdet_sweeper.sweeper.MegdetSweeper"},
    "optuna": {
        "_target_": "hydra_plugins.megdet_sweeper.sweeper.OptunaSweeper",
        "_recursive_": False,  # the sampler is made where Optuna's absence can be explained
        "defaults": [{"sampler": "tpe"}],
        **asdict(StudySettings()),
    },
}
"""`hydra/sweeper=`, beside Hydra's own `basic`."""
SAMPLERS: dict[str, dict[str, Any]] = {
    # constant_liar: points of one batch keep their distance from each other.
    "tpe": {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 10, "constant_liar": True},
    "random": {"_target_": "optuna.samplers.RandomSampler", "seed": 0},
}
"""`hydra/sweeper/sampler=`. A seed makes the same command ask for the same runs again, so that it goes on."""
HYDRAS_CHOICES = {
    "hydra/launcher": ["basic", *LAUNCHERS],
    "hydra/sweeper": ["basic", *SWEEPERS],
    "hydra/sweeper/sampler": list(SAMPLERS),
}
"""Of each group of Hydra's that has options of megdet's, all of them by name."""
REFUSED_LAUNCHERS = {"submitit_local": "hydra_plugins.megdet_launcher.launcher.SubmititLocal"}
"""Composed all the same, so that megdet can say what to use (`megdet.launchers.named`)."""


def register() -> None:
    """Tell Hydra. Whatever plugins of the same names are installed beside megdet (hydra-submitit-launcher,
    hydra-optuna-sweeper), in megdet's programs these are meant.

    Configs in the store, not files in conf/: Hydra takes a file for an old way to extend the plugin's config of the
    same name, and warns at every start.
    """
    Plugins.instance()  # plugins store their configs as they are found; what comes later replaces them
    _store("base_config", Config)
    for name, target in (LAUNCHERS | REFUSED_LAUNCHERS).items():
        _store(name, {"_target_": target}, "hydra/launcher")
    for name, sweeper in SWEEPERS.items():
        _store(name, sweeper, "hydra/sweeper")
    for name, sampler in SAMPLERS.items():
        _store(name, sampler, "hydra/sweeper/sampler")


def _store(name: str, node: Any, group: str | None = None) -> None:
    ConfigStore.instance().store(name=name, node=node, group=group, provider="megdet")
