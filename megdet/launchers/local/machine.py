"""The GPUs and cores of this machine, and what fits."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.launchers.interface import Start
from megdet.planning.plan import Plan
from megdet.planning.shapes import on_any
from megdet.runs.prediction import is_like_the_paper

MAX_CPU_RANKS = 64
IMAGE_CORE_S = 6.3
"""Seconds of one core for one image of the paper's detector at 800 pixels, forward and backward, as measured
(`python -m benchmarks.train_step --threads 1`, AMD EPYC)."""


@dataclass(frozen=True)
class Machine:
    """GPUs and cores that this process may use."""

    gpus: tuple[str, ...]
    """By the names that CUDA_VISIBLE_DEVICES knows: `0`, `GPU-1a2b`, `MIG-3c4d`."""
    cores: int
    gpu_memory_gb: float | None = None
    """Of the smallest GPU, in GB of 2^30 bytes, where nvidia-smi says so."""

    @classmethod
    def here(cls) -> Machine:
        """The GPUs of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            gpus = [str(number) for number in range(_gpus_of_nvidia_smi())]
        else:
            gpus = [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # A part of a GPU has less than nvidia-smi says of the whole.
        is_whole = bool(gpus) and not any(name.startswith("MIG") for name in gpus)
        return cls(tuple(gpus), cores, _memory_of_nvidia_smi() if is_whole else None)

    def resolve(self, config: Config) -> Config:
        """The config with `cluster.gpus_per_node=auto` as the number of this machine.

        Without a GPU that is 1, or as many CPU processes as `gpus` asks for. A dry run may plan for GPUs that are not
        here, by their number. With `cluster.elastic`, what asks for more GPUs than there are gets those that there are.
        """
        if config.cluster.elastic and self.gpus and self._is_short_of(config):
            config = on_any(config)
            config.cluster.gpus_per_node = "auto"
        is_auto = config.cluster.gpus_per_node == "auto"
        on_cpus = not self.gpus and (is_auto or not config.sweep.dry_run)
        if not is_auto and not on_cpus:
            return config
        config = copy.deepcopy(config)
        config.cluster.request_gpus = not on_cpus
        if is_auto:
            asked = min(config.gpus, MAX_CPU_RANKS) if isinstance(config.gpus, int) and config.gpus > 0 else 1
            config.cluster.gpus_per_node = len(self.gpus) or asked
            config.cluster.gpu_memory_gb = config.cluster.gpu_memory_gb or self.gpu_memory_gb
        return config

    def _is_short_of(self, config: Config) -> bool:
        wanted = (config.gpus, config.cluster.gpus_per_node)
        return any(isinstance(gpus, int) and gpus > len(self.gpus) for gpus in wanted)

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

    def expected_start(self, plan: Plan) -> Start:
        """At once, for this machine has no queue. Raises UserError where a plan does not fit."""
        self.check(plan)
        if plan.config.cluster.request_gpus and plan.layout.gpus > len(self.gpus):
            return Start(
                None, f"this machine has {len(self.gpus) or 'no'} GPUs (hydra/launcher=submitit_slurm asks Slurm)"
            )
        return Start(datetime.now().astimezone())

    def remarks(self, plans: Sequence[Plan]) -> list[str]:
        """What CPU processes in place of GPUs mean for these plans; a line each."""
        plans = [plan for plan in plans if not plan.config.cluster.request_gpus]
        if not plans:
            return []
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        said = [f"no GPU here: CPU processes stand in for GPUs, on {cores}"]
        crowded = max(plans, key=lambda plan: plan.layout.gpus)
        if crowded.layout.gpus > self.cores:
            said.append(
                f"{crowded.layout.gpus} processes share {cores}; with gpus={self.cores} or gpus=auto, where the "
                "layout allows it, the result is the same and comes sooner"
            )
        large = [plan for plan in plans if is_like_the_paper(plan.config)]
        if large:
            hours = [plan.schedule.steps * plan.config.batch * IMAGE_CORE_S / self.cores / 3600 for plan in large]
            each = f"about {min(hours):,.0f}" + (f" to {max(hours):,.0f}" if max(hours) >= 1.1 * min(hours) else "")
            said.append(
                f"{large[0].config.model.name} on {large[0].config.data.name} is not meant for a CPU: {each} hours a "
                f"run here, at {IMAGE_CORE_S:g} s an image and core"
            )
            said.append(
                "made for a machine like this: experiment=tiny; for your cluster: hydra/launcher=submitit_slurm; the "
                "plan for the paper's: cluster=paper sweep.dry_run=true"
            )
        return said


def _gpus_of_nvidia_smi() -> int:
    return sum(1 for line in _nvidia_smi("-L") if line.startswith("GPU "))


def _memory_of_nvidia_smi() -> float | None:
    """The least of all GPUs; None where it does not say."""
    said = _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    mib = [int(line) for line in said if line.strip().isdigit()]
    return round(min(mib) / 1024, 2) if mib else None


def _nvidia_smi(*arguments: str) -> list[str]:
    try:
        said = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.splitlines()
