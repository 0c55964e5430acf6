"""Large-batch object-detection experiments: asked, planned, done.

In a notebook `megdet.load("runs/RUN")` opens a trained run, and `megdet.load_runs("runs")` reads all of a folder into
data frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megdet.analysis.frames import load_runs as load_runs
    from megdet.analysis.run_frames import RunFrames as RunFrames
    from megdet.trained.run import TrainedRun as TrainedRun
    from megdet.trained.run import load as load

__version__ = "0.2.0.dev0"

_LOADED_WHEN_ASKED_FOR = {
    "RunFrames": "megdet.analysis.run_frames",
    "load_runs": "megdet.analysis.frames",
    "TrainedRun": "megdet.trained.run",
    "load": "megdet.trained.run",
}
"""`import megdet` itself is instant: neither torch nor pandas comes with it."""


def __getattr__(name: str) -> Any:
    if name not in _LOADED_WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_WHEN_ASKED_FOR[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LOADED_WHEN_ASKED_FOR])
