"""The settings of the MLflow mirror."""

from __future__ import annotations

from dataclasses import dataclass

from megdet.settings.rules import Flag, Settings, Text, setting


@dataclass
class TrackingSettings(Settings):
    """The MLflow mirror of the run folders."""

    enabled: bool = setting(True, Flag())
    uri: str | None = setting(None, Text())
    """None: MLFLOW_TRACKING_URI, else sqlite in `mlflow.db` of the folder that the command was given in."""
    experiment: str = setting("megdet", Text())
    system_metrics: bool = setting(False, Flag())
    """Whether the journal notes, with each logged step, how busy the machine of rank 0 is: processors, memory, GPUs.
    Needs megdet[system]."""
