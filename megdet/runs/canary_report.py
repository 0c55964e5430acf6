"""canary.json: what a canary has measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from megdet.planning.plan import Plan
from megdet.runs.folder import RunFolder
from megdet.runs.times import duration_text

SLOW_LOADER = 0.2
"""Share of a step's time for which GPUs wait for images that is worth a word."""


@dataclass(frozen=True)
class CanaryReport:
    """What some steps and one evaluation batch took."""

    steps: int
    step_s: float
    """Median; the first steps, in which libraries warm up, are left out."""
    loader_share: float
    """Of those steps' time: how long rank 0 waited for images."""
    eval_gpu_s: float
    """GPU-seconds of one evaluation, from one batch of the largest images."""
    peak_memory_gb: float
    """On the fullest rank, of 2^30 bytes: allocated on a GPU, resident on a CPU."""
    gpu_hours: float | None = None
    """What all runs that wait for it are predicted to take, from these numbers; None where nobody has asked."""

    def write(self, folder: RunFolder) -> None:
        folder.write_canary(asdict(self))

    @classmethod
    def read(cls, folder: RunFolder) -> CanaryReport | None:
        """None where it has measured nothing yet. Raises UserError where the file is damaged."""
        return folder.read_canary(lambda values: cls(**values))

    def describe(self, plan: Plan) -> str:
        """A line on it, for a reader."""
        one = "GPU" if plan.config.cluster.request_gpus else "process"
        predicted = f" ({plan.memory_gb:.1f} predicted)" if plan.memory_gb and one == "GPU" else ""
        slow = ""
        if self.loader_share > SLOW_LOADER:
            slow = (
                f"; slow loader: {100 * self.loader_share:.0f} % of a step is waiting for images (data.workers="
                f"{plan.config.data.workers}, cluster.cpus_per_gpu, or the storage)"
            )
        return (
            f"{self.steps} steps of {self.step_s:.3g} s, {self.peak_memory_gb:.1f} GB a {one}{predicted}, "
            f"an evaluation in about {duration_text(self.eval_gpu_s / plan.layout.gpus)}{slow}"
        )
