"""`hydra/launcher=submitit_slurm` and `local_parallel`: thin adapters, for Hydra finds launchers only in here.

Our own sweeper hands whole sweeps to `megdet.sweep.sweep`. These classes are for sweepers of other packages, which
hand over a few points at a time and want a number back: the final mmAP.

Hydra imports this file at every start: everything that takes time is imported when a sweep begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _PlanningLauncher(Launcher):
    """Plans the points that another sweeper chose, runs them by a launcher of ours, and waits for their mmAP."""

    NAME: str

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from megdet.config.compose import to_config
        from megdet.config.experiments import Asked
        from megdet.launchers.named import launcher_named
        from megdet.sweep.objective import final_mmap, with_repeated
        from megdet.sweep.points import plan_points
        from megdet.sweep.sweep import run_points

        composed = [self._loader.load_sweep_config(self._config, list(overrides)) for overrides in job_overrides]
        pairs = zip(job_overrides, composed, strict=True)
        asked = [Asked(tuple(overrides), to_config(config)) for overrides, config in pairs]
        for one in asked:
            one.config.sweep.wait = True
        launcher = launcher_named(self.NAME, asked[0].config)
        run_points(asked, launcher=launcher)
        returns = []
        for number, point in enumerate(with_repeated(plan_points(asked, to_run_here=True, launcher=launcher))):
            result = JobReturn(overrides=job_overrides[number], cfg=composed[number], hydra_cfg=composed[number])
            try:
                # In a dry run nothing has run; the sweeper goes on to its next points.
                result.return_value = 0.0 if asked[number].config.sweep.dry_run and point.plan else final_mmap(point)
                result.status = JobStatus.COMPLETED
            except Exception as error:  # what a sweeper does about a failed point is its choice
                result.return_value = error
                result.status = JobStatus.FAILED
            returns.append(result)
        return returns


class SlurmLauncher(_PlanningLauncher):
    """Jobs on a Slurm cluster."""

    NAME = "submitit_slurm"


class ParallelLauncher(_PlanningLauncher):
    """As many runs at a time as this machine has GPUs or cores for."""

    NAME = "local_parallel"


class SubmititLocal(_PlanningLauncher):
    """submitit's own local executor: refused, with a word on what to use (`megdet.launchers.named`)."""

    NAME = "submitit_local"
