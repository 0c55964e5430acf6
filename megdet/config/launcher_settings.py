"""The settings of submitit's own plugin for Hydra, for who knows that one: what they are called here."""

from __future__ import annotations

from collections.abc import Sequence

from megdet.errors import UserError


def refuse_launcher_settings(hydra_overrides: Sequence[str]) -> None:
    """What submitit's plugin for Hydra takes as `hydra.launcher.timeout_min=60` is `cluster.time_min=60` here.

    Raises UserError for such an override among those of the command line that begin with `hydra`.
    """
    for override in hydra_overrides:
        name, _, value = override.lstrip("+~").partition("=")
        if not name.startswith("hydra.launcher."):
            continue
        setting = name.removeprefix("hydra.launcher.")
        ours = _OF_SUBMITITS_PLUGIN.get(setting.removeprefix("slurm_"))
        way_out = f"use {ours}={value}" if ours else "settings of jobs are cluster.* here (python launch.py --cfg job)"
        raise UserError(f"{override}: megdet's launchers take no hydra.launcher settings; {way_out}")


_OF_SUBMITITS_PLUGIN = {
    "timeout_min": "cluster.time_min",
    "partition": "cluster.partition",
    "account": "cluster.account",
    "qos": "cluster.qos",
    "constraint": "cluster.constraint",
    "nodes": "cluster.nodes",
    "gpus_per_node": "cluster.gpus_per_node",
    "gpus_per_task": "gpus",
    "tasks_per_node": "gpus",
    "cpus_per_task": "cluster.cpus_per_gpu",
    "mem_gb": "cluster.mem_gb_per_gpu",
    "mem_per_gpu": "cluster.mem_gb_per_gpu",
    "array_parallelism": "cluster.array_parallelism",
    "setup": "cluster.setup",
    "srun_args": "cluster.srun_args",
    "additional_parameters": "cluster.sbatch_options",
    "signal_delay_s": "cluster.signal_delay_s",
    "max_num_timeout": "cluster.max_retries",
}
"""What a setting of hydra-submitit-launcher is called here."""
