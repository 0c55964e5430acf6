"""The settings of a study: Optuna looks for the settings with the highest mmAP (`hydra/sweeper=optuna`)."""

from __future__ import annotations

from dataclasses import dataclass

from megdet.settings.rules import OneOf, Settings, TextByName, Whole, setting


@dataclass
class StudySettings(Settings):
    """The names are those of Hydra's own plugin, hydra-optuna-sweeper."""

    n_trials: int = setting(20, Whole(least=1))
    """Points to try in all."""
    n_jobs: int = setting(1, Whole(least=1))
    """Points that are chosen and run at a time; the next ones know their results."""
    direction: str = setting("maximize", OneOf(("maximize",)), why="mmAP is better the higher it is")
    params: dict[str, str] = setting({}, TextByName())
    """Ranges for a file of one's own, `{lr.base: "interval(0.005, 0.05)"}`; the command line has the last word."""
