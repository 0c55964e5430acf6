"""Where the host waits for the GPU, and how long the GPU waits for the host."""

from __future__ import annotations

import statistics
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.found import Bench, Found
from benchmarks.gpu.trainer import Trainer, alone, batch_of, detector_of, trainer_of
from benchmarks.report import ROOT

MOST_PLACES = 20
"""Of those where the host waits."""


def measure(bench: Bench) -> Iterator[Found]:
    with alone(bench):
        yield from _formats(bench)
        for frozen in (True, False):
            trainer = trainer_of(bench, images=bench.many, precision="bf16", frozen=frozen)
            batch = batch_of(bench, bench.many)
            trainer.steps([batch] * 3)
            norm = "frozen BN" if frozen else "CGBN"
            if bench.on_gpu:
                yield from _waits(trainer, norm)
            yield from _idle(bench, trainer, norm)


def _waits(trainer: Trainer, norm: str) -> Iterator[Found]:
    """How often each line has the host wait in one step."""
    batch = batch_of(trainer.bench, trainer.bench.many)
    places: Counter[str] = Counter()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if "synchroniz" in str(message):
            places[_place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # restored by catch_warnings
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.steps([batch])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    yield Found(f"{norm}: times a step has the host wait", float(sum(places.values())))
    for place, count in places.most_common(MOST_PLACES):
        yield Found(f"  {place}", float(count))


def _place() -> str:
    """The innermost line of ours."""
    ours = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT / "megdet"))]
    if not ours:
        return "outside of megdet"
    return f"{ours[-1].filename.removeprefix(f'{ROOT}/')}:{ours[-1].lineno} {ours[-1].name}"


def _idle(bench: Bench, trainer: Trainer, norm: str) -> Iterator[Found]:
    """The share of ten steps in which no kernel runs, and what takes most of the rest."""
    steps = 2 if bench.quick else 10
    batch = batch_of(bench, bench.many)
    activities = [ProfilerActivity.CUDA] if bench.on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        trainer.steps([batch] * steps)
    kind = DeviceType.CUDA if bench.on_gpu else DeviceType.CPU
    events = [event for event in found.events() or [] if event.device_type == kind]
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)
    if not spans:
        yield Found(f"{norm}: the profile saw nothing", "nothing")
        return
    whole_us = max(end for _, end in spans) - spans[0][0]
    idle = 1 - _covered(spans) / whole_us
    yield Found(f"{norm}: GPU idle", 100 * idle, "%", at_most=10.0 if bench.judges_speed else None)
    yield Found(f"{norm}: operations a step", len(spans) / steps)
    taken: Counter[str] = Counter()
    for event in events:
        taken[event.name] += event.time_range.elapsed_us()
    for name, us in taken.most_common(8):
        yield Found(f"  {name[:58]}", 100 * us / whole_us, "%")


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of sorted spans."""
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _formats(bench: Bench) -> Iterator[Found]:
    """What the channels-last format brings without half precision."""
    rates = {}
    for name, memory_format in (("channels last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        detector = detector_of(bench, bench.model(), bn_size=bench.few).to(memory_format=memory_format)
        trainer = Trainer(detector, bench, precision="fp32")
        seconds = trainer.steps([batch_of(bench, bench.few)] * (3 if bench.quick else 9))
        rates[name] = bench.few / statistics.median(seconds[len(seconds) // 3 :])
        yield Found(f"fp32, weights {name}, {bench.few} images", rates[name], "images/s")
    yield Found("time contiguous / channels last", rates["channels last"] / rates["contiguous"], "x")
