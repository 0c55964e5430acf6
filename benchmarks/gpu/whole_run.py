"""A whole run from launch.py: interrupted once, resumed, evaluated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.found import Bench, Found
from benchmarks.report import ROOT

EPOCHS = 2


def measure(bench: Bench) -> Iterator[Found]:
    with tempfile.TemporaryDirectory() as folder:
        command = _command(bench, Path(folder))
        environment = {**os.environ, "MEGDET_CACHE": "", **({} if bench.on_gpu else {"CUDA_VISIBLE_DEVICES": ""})}
        began = time.monotonic()
        first = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while first.poll() is None and not _lines(Path(folder), "step"):
            time.sleep(0.1)
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate()
        yield Found("begun and interrupted", time.monotonic() - began, "s")
        before = _state(folder, said)
        yield Found("status then", str(before["status"]))
        yield Found("steps then", float(before["step"]), at_least=1)

        began = time.monotonic()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout.decode()[-4000:]}")
        yield Found("resumed and finished", time.monotonic() - began, "s")
        after = _state(folder, done.stdout)
        yield Found("finished", float(after["status"] == "finished"), at_least=1)
        epochs = _lines(Path(folder), "epoch")
        yield Found("epochs on record", float(len(epochs)), at_least=EPOCHS)
        yield Found("images a second, evaluation apart", float(epochs[-1]["images_per_s"]), "images/s")
        yield Found("peak, as the run records it", float(epochs[-1]["peak_memory_gb"]), "GB")
        yield Found("mmAP after so little", float(epochs[-1]["mmAP"]))


def _command(bench: Bench, folder: Path) -> list[str]:
    images, size = (32, 64) if bench.quick else (512, 512)
    model = "tiny" if bench.quick else "r18_fpn"
    asked = [
        f"model={model}", "model.backbone.weights=none", "model.backbone.frozen_stages=0", "data=shapes",
        f"data.root={folder / 'set'}", f"data.train_images={images}", "data.val_images=32",
        f"data.min_size={size}", f"data.max_size={2 * size}", f"data.workers={0 if bench.quick else 8}",
        "batch=8", "bn_size=8", "gpus=1", "images_per_gpu=8", "cluster.gpus_per_node=1",
        "precision=bf16", "log_every=1", "tracking.enabled=false",
        f"schedule.epochs={EPOCHS}", "schedule.milestones=[1]", "schedule.factors=[0.1]",
    ]  # fmt: skip
    return [sys.executable, str(ROOT / "launch.py"), *asked]


def _lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Of the run's journal; none where there is none yet."""
    found = [json.loads(line) for path in folder.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def _state(folder: str, said: bytes) -> dict[str, Any]:
    paths = list(Path(folder).glob("runs/*/state.json"))
    if not paths:
        raise RuntimeError(f"no run began:\n{said.decode()[-4000:]}")
    state: dict[str, Any] = json.loads(paths[0].read_text())
    return state
