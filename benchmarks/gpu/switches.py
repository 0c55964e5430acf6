"""What each switch of the model costs beside the paper's detector."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import alone, batch_of, forget_peak, peak_gb, trainer_of
from megdet.config.locations import CONF
from megdet.model.settings import ModelSettings

GROUPS = ("roi_pool", "norm")


def measure(bench: Bench) -> Iterator[Found]:
    with alone(bench):
        base, base_gb = _rate(bench, bench.model())
        yield Found("bf16 with CGBN and RoIAlign", base, "images/s")
        for group in GROUPS:
            for file in sorted((CONF / "model" / group).glob("*.yaml")):
                model = bench.model()
                if _set(model, group, file):
                    rate, peak = _rate(bench, model)
                    yield Found(f"model/{group}={file.stem}: time / that", base / rate, "x")
                    if base_gb:
                        yield Found(f"model/{group}={file.stem}: peak / that", peak / base_gb, "x")


def _set(model: ModelSettings, group: str, file: Path) -> bool:
    """Choose the file's option in `model`; whether that changes anything."""
    part = getattr(model, group)
    values = {key: value for key, value in yaml.safe_load(file.read_text()).items() if key != "defaults"}
    before = dict(vars(part))
    for key, value in values.items():
        setattr(part, key, value)
    return dict(vars(part)) != before


def _rate(bench: Bench, model: ModelSettings) -> tuple[float, float]:
    """Images a second, and the peak in GB."""
    forget_peak(bench)
    trainer = trainer_of(bench, images=bench.many, precision="bf16", frozen=False, model=model)
    seconds = trainer.steps([batch_of(bench, bench.many)] * (3 if bench.quick else 9))
    return bench.many / statistics.median(seconds[len(seconds) // 3 :]), peak_gb(bench)
