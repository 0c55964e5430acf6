"""A benchmark's numbers as JSON, with what made them: commit, hardware, versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from megdet.runs.processor import processor_name

PACKAGES = ("torch", "torchvision", "numpy", "hotcoco", "pycocotools", "hydra-core", "mlflow", "pillow")
ROOT = Path(__file__).resolve().parents[1]


def write_report(name: str, numbers: dict[str, Any], out: Path | None = None) -> Path:
    """Write `numbers` to `out` (default: results/benchmarks/<name>.json); the file written."""
    path = out or ROOT / "results" / "benchmarks" / f"{name}.json"
    report = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "hardware": hardware(),
        "versions": versions(),
        "numbers": numbers,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return path


def hardware() -> dict[str, Any]:
    """CPU model, cores this process may use, memory; GPUs where torch is already loaded and sees some."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found: dict[str, Any] = {
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_gb, 1),
        "system": platform.platform(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def versions() -> dict[str, str]:
    """Of Python and of the packages that a number can depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(*args: str) -> str:
    """git's answer, or '' outside a repository."""
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
