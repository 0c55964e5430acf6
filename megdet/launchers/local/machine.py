"""The GPUs and cores of this machine, and what fits."""

from __future__ import annotations

import copy
import os
import subprocess
from dataclasses import dataclass

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.plan import Plan

MAX_CPU_RANKS = 64


@dataclass(frozen=True)
class Machine:
    """GPUs and cores that this process may use."""

    gpus: tuple[str, ...]
    """By the names that CUDA_VISIBLE_DEVICES knows: `0`, `GPU-1a2b`, `MIG-3c4d`."""
    cores: int

    @classmethod
    def here(cls) -> Machine:
        """The GPUs of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            gpus = [str(number) for number in range(_gpus_of_nvidia_smi())]
        else:
            gpus = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(tuple(gpus), cores)

    def resolve(self, config: Config) -> Config:
        """The config with `cluster.gpus_per_node=auto` as the number of this machine.

        Without a GPU that is 1, or as many CPU processes as `gpus` asks for.
        """
        if config.cluster.gpus_per_node != "auto":
            return config
        asked = min(config.gpus, MAX_CPU_RANKS) if isinstance(config.gpus, int) and config.gpus > 0 else 1
        config = copy.deepcopy(config)
        config.cluster.gpus_per_node = len(self.gpus) or asked
        return config

    def check(self, plan: Plan) -> None:
        """Raises UserError where a plan needs more ranks than this machine can run."""
        if plan.layout.gpus <= (len(self.gpus) or MAX_CPU_RANKS):
            return
        none = f"none (at most {MAX_CPU_RANKS} CPU processes stand in for them)"
        raise UserError(
            f"{plan.run_id} is planned for gpus={plan.layout.gpus} on {plan.layout.nodes} nodes, and this machine has "
            f"{len(self.gpus) or none}; use cluster=local for a layout that fits here (the result is the same), or "
            "sweep.dry_run=true"
        )


def _gpus_of_nvidia_smi() -> int:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(1 for line in listed.stdout.splitlines() if line.startswith("GPU "))
